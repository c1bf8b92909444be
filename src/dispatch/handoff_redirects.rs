//! Conversations that are handed off: their messages are redirected or get no reply, and no handler runs.
//!
//! A claim says whether its conversation is handed off, so other messages cost no query. The handoff is read for those
//! that are. Each message extends it when its reply is saved, unless it has ended since.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::HandlerFailure;
use super::store_monitor::StoreMonitor;
use crate::clock::{Clock, after};
use crate::reply::Reply;
use crate::store::{ActiveHandoff, Claim, Completion, HandoffChange, Store};

/// Redirects of conversations that are handed off.
pub(super) struct HandoffRedirects {
    pub(super) store: Arc<dyn Store>,
    pub(super) monitor: Arc<StoreMonitor>,
    pub(super) clock: Arc<dyn Clock>,
    /// Time from the last message of a handoff to its end, for a handoff that names no other.
    pub(super) ttl: Duration,
}

impl HandoffRedirects {
    /// Returns the reply to a message of a conversation that is handed off: a redirect, or none if the bot is silent.
    pub(super) async fn redirect(
        &self,
        claim: Claim,
    ) -> Option<Result<(Reply, Completion), HandlerFailure>> {
        if !claim.handed_off {
            return None;
        }
        let now = self.clock.now();
        let lookup = self
            .monitor
            .timed("handoff", self.store.handoff(claim.conversation, now));
        let Ok(handoff) = lookup.await else {
            return Some(Err(HandlerFailure::Error));
        };
        // None: the handoff has ended since the claim, so the handler runs.
        let handoff = handoff?;
        let (until, redirects) = (after(now, handoff.ttl), handoff.url.is_some());
        let reply = match handoff.url {
            Some(url) => Reply::redirect(url).map_err(|error| {
                tracing::error!(%error, "the stored URL of a handoff is invalid");
                HandlerFailure::Error
            }),
            None => Ok(Reply::none()),
        };
        // `Continue` extends an existing handoff. It does not begin one that an operator ends before
        // the reply is saved.
        let completion = Completion {
            handoff: Some(HandoffChange::Continue { until, redirects }),
            reason: Some("the bot did not get it: the conversation is handed off"),
            ..Completion::default()
        };
        Some(reply.map(|reply| (reply, completion)))
    }

    /// Returns the handoff that a reply begins.
    pub(super) fn begun_handoff(&self, reply: &Reply) -> Option<HandoffChange> {
        let start = reply.handoff_start()?;
        let ttl = start.ttl.unwrap_or(self.ttl);
        Some(HandoffChange::Begin {
            handoff: ActiveHandoff {
                url: start.url.clone(),
                ttl,
            },
            until: after(self.clock.now(), ttl),
        })
    }
}
