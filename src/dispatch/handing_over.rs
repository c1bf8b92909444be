//! Conversations that were handed over: their messages are redirected, and their handler is not asked.
//!
//! That one is comes with the claim, so that others do not pay for it; where it goes to is asked for then. Each message that
//! was redirected makes it last longer, with its answer, unless it was taken back meanwhile.

use super::{Dispatcher, Failure};
use crate::clock::after;
use crate::reply::Reply;
use crate::store::{Claim, Ending, HandOverChange};

impl Dispatcher {
    /// What a message is answered with whose conversation is handed over.
    pub(super) async fn pass_on(&self, claim: Claim) -> Option<Result<(Reply, Ending), Failure>> {
        if !claim.handed_over {
            return None;
        }
        let now = self.clock.now();
        let asked = self.patient(
            "handed_over",
            self.store.handed_over(claim.conversation, now),
        );
        let Ok(to) = asked.await else {
            return Some(Err(Failure::Error));
        };
        // Taken back since it was claimed: the handler is asked.
        let reply = Reply::redirect(to?).map_err(|error| {
            tracing::error!(%error, "what a conversation is handed over to is no URL");
            Failure::Error
        });
        let until = after(now, self.limits.hand_over);
        let ending = Ending {
            hand_over: Some(HandOverChange::Continue { until }),
            ..Ending::default()
        };
        Some(reply.map(|reply| (reply, ending)))
    }

    /// What begins with a reply that hands over.
    pub(super) fn begins(&self, reply: &Reply) -> Option<HandOverChange> {
        let redirect = reply.redirect_target().filter(|target| target.hands_over)?;
        Some(HandOverChange::Begin {
            to: redirect.url.clone(),
            until: after(self.clock.now(), self.limits.hand_over),
        })
    }
}
