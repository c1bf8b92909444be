//! Conversations that are handed off: their messages are redirected, and no handler runs.
//!
//! A claim says whether its conversation is handed off, so other messages cost no query. The URL is read for those that
//! are. Each redirected message extends the handoff when its reply is saved, unless it has ended since.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::HandlerFailure;
use super::store_monitor::StoreMonitor;
use crate::clock::{Clock, after};
use crate::reply::Reply;
use crate::store::{Claim, Completion, HandoffChange, Store};

/// Redirects of conversations that are handed off.
pub(super) struct HandoffRedirects {
    pub(super) store: Arc<dyn Store>,
    pub(super) monitor: Arc<StoreMonitor>,
    pub(super) clock: Arc<dyn Clock>,
    /// Time from the last message of a handoff to its end.
    pub(super) ttl: Duration,
}

impl HandoffRedirects {
    /// Returns the redirect for a message of a conversation that is handed off.
    pub(super) async fn redirect(
        &self,
        claim: Claim,
    ) -> Option<Result<(Reply, Completion), HandlerFailure>> {
        if !claim.handed_off {
            return None;
        }
        let now = self.clock.now();
        let lookup = self.monitor.timed(
            "handoff_url",
            self.store.handoff_url(claim.conversation, now),
        );
        let Ok(url) = lookup.await else {
            return Some(Err(HandlerFailure::Error));
        };
        // No URL: the handoff has ended since the claim, so the handler runs.
        let reply = Reply::redirect(url?).map_err(|error| {
            tracing::error!(%error, "the stored URL of a handoff is invalid");
            HandlerFailure::Error
        });
        let until = after(now, self.ttl);
        // `Continue` extends an existing handoff. It does not begin one that an operator ends before
        // the reply is saved.
        let completion = Completion {
            handoff: Some(HandoffChange::Continue { until }),
            ..Completion::default()
        };
        Some(reply.map(|reply| (reply, completion)))
    }

    /// Returns the handoff that a reply begins.
    pub(super) fn begun_handoff(&self, reply: &Reply) -> Option<HandoffChange> {
        let redirect = reply.redirect_target().filter(|target| target.is_handoff)?;
        Some(HandoffChange::Begin {
            to: redirect.url.clone(),
            until: after(self.clock.now(), self.ttl),
        })
    }
}
