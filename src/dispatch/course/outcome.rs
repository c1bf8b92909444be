//! Saves the outcome of a handler: its reply or its failure.

use std::time::Duration;

use super::Course;
use crate::dispatch::origin::Origin;
use crate::dispatch::{DispatchOutcome, HandlerFailure};
use crate::reply::{Reply, WireMessage};
use crate::store::{
    Claim, Completion, DeadMessage, DeadReason, FailOutcome, NewOutbound, ReplyDecision, ReplyPath,
    SavedResponse,
};
use crate::twiml::Document;

/// Pauses between attempts to save a reply while the store is unavailable. The last one repeats.
const RETRY: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

impl Course {
    /// Saves a reply and sends it: in the response if that is still possible, else via the REST API.
    pub(super) async fn say(
        &mut self,
        claim: Claim,
        origin: &Origin,
        reply: Reply,
        ending: Completion,
    ) {
        let dispatcher = self.dispatcher.clone();
        let channel = origin.user.channel();
        let reply = if dispatcher.limits.numbered {
            reply.numbered()
        } else {
            reply
        };
        let reply = if reply.has_media() {
            let to = (origin.account, origin.sid);
            match dispatcher.files.publish(reply, channel, to).await {
                Ok(reply) => reply,
                Err(error) => return Box::pin(self.unsayable(claim, origin, error)).await,
            }
        } else {
            reply
        };
        // A message to another user: only the outbox checks the window and consent of that user.
        let to_others = !reply.messages().iter().all(|said| origin.hears(said));
        let messages = dispatcher.wire_messages(&reply, origin);
        let document = Document::from_messages(&reply, &messages, Some(&dispatcher.public_url));
        let document = match document {
            Ok(document) => Some(document),
            // Too large for TwiML. The REST API takes each message in a call of its own.
            Err(error) if error.is_overflow() => None,
            Err(error) => return Box::pin(self.unsayable(claim, origin, error)).await,
        };
        // Without a request, no response could carry the TwiML.
        if let Some(document) = document.filter(|_| !to_others && !self.is_unattended()) {
            dispatcher
                .metrics
                .invalid_xml_chars
                .increment(document.replaced() as u64);
            crate::crash_point!("P5");
            let now = dispatcher.clock.now();
            // Without a queue the reply never waits for older ones. An empty reply overtakes none, and a redirect
            // cannot go via the REST API.
            let keeps_order = document != Document::empty() && reply.redirect_target().is_none();
            let completed = Completion {
                queue: keeps_order.then(|| origin.queue()),
                ..ending.clone()
            };
            let saved = dispatcher
                .store
                .complete_inline(claim, document.to_stored(), completed, now)
                .await;
            match saved {
                Ok(ReplyDecision::Inline(SavedResponse { twiml })) => {
                    // The store has saved the empty response, because the user opted out while the handler ran.
                    if twiml.is_none() && document != Document::empty() {
                        dispatcher.metrics.suppressed.increment(1);
                    }
                    crate::crash_point!("P6");
                    self.tell(DispatchOutcome::Reply(Document::from_saved(twiml)));
                    return;
                }
                Ok(ReplyDecision::ViaRest) => {}
                Ok(ReplyDecision::ClaimLost) => return self.lost(origin),
                Err(error) => {
                    // The reply may or may not be saved, so it must not be sent now. The request gets a 503. Below,
                    // `complete_via_rest` queues the reply unless it was saved, or was replaced by a fallback text.
                    dispatcher.store_failed("complete_inline", &error);
                    self.tell(DispatchOutcome::Unavailable);
                }
            }
        }
        crate::crash_point!("P9.done");
        if ending.handoff.is_some() {
            tracing::warn!(message_sid = %origin.sid, "the conversation is handed off, but its reply goes via the REST API, which cannot redirect this message; later messages are redirected");
        } else if reply.redirect_target().is_some() {
            tracing::error!(message_sid = %origin.sid, "the reply is a redirect and came too late; the REST API cannot redirect");
            return Box::pin(self.give_up(claim, origin, HandlerFailure::Error)).await;
        }
        Box::pin(self.send_later(claim, origin, &messages, ending)).await;
    }

    /// Puts a reply into the outbox. Repeats this until the store has done it.
    async fn send_later(
        &mut self,
        claim: Claim,
        origin: &Origin,
        messages: &[WireMessage<'_>],
        ending: Completion,
    ) {
        let dispatcher = self.dispatcher.clone();
        let replies: Vec<NewOutbound> = messages.iter().map(|wire| origin.reply(wire)).collect();
        let mut pauses = RETRY.into_iter();
        loop {
            // After a failure of the store, Twilio may have called the fallback URL of this or another
            // server, which sent the fallback text. The other servers have to write such replies to the store
            // first: `complete_via_rest` then finds the claim lost. A reply from this server's memory is
            // found by the check below.
            dispatcher.outage_over_elsewhere().await;
            if dispatcher
                .state
                .outage
                .has_answered(origin.account, origin.sid)
            {
                return self.lost(origin);
            }
            let now = dispatcher.clock.now();
            let finished = dispatcher
                .store
                .complete_via_rest(claim, replies.clone(), ending.clone(), now)
                .await;
            match finished {
                Ok(true) => {
                    crate::crash_point!("P10");
                    dispatcher.outbox.notify_one();
                    self.tell(DispatchOutcome::ByRest);
                    return;
                }
                Ok(false) => return self.lost(origin),
                Err(error) => dispatcher.store_failed("complete_via_rest", &error),
            }
            // The request gets its 503 now.
            self.tell(DispatchOutcome::Unavailable);
            // tokio's clock, not `dispatcher.clock`: advancing a test clock does not make the store recover.
            tokio::time::sleep(pauses.next().unwrap_or(RETRY[RETRY.len() - 1])).await;
        }
    }

    /// Discards a reply whose claim is lost: another process, or a fallback call, replies instead.
    fn lost(&mut self, origin: &Origin) {
        self.dispatcher.metrics.replies_superseded.increment(1);
        tracing::warn!(message_sid = %origin.sid, "reply not queued: the message already has a response, or another process holds its claim");
        self.tell(DispatchOutcome::Duplicate(Document::empty()));
    }

    /// Treats a reply that cannot be sent as a failure of the handler.
    async fn unsayable(&mut self, claim: Claim, origin: &Origin, error: impl std::error::Error) {
        tracing::error!(message_sid = %origin.sid, %error, "the reply cannot be sent");
        self.give_up(claim, origin, HandlerFailure::Error).await;
    }

    /// Records a failed attempt and sends its outcome. A fallback call gets the fallback text, since
    /// no request follows it.
    pub(super) async fn give_up(&mut self, claim: Claim, origin: &Origin, failure: HandlerFailure) {
        let dispatcher = self.dispatcher.clone();
        let (reason, dead) = match failure {
            HandlerFailure::Error => ("the handler failed", DeadReason::HandlerFailed),
            HandlerFailure::Panic => ("the handler panicked", DeadReason::HandlerPanicked),
        };
        let fallback_text = dispatcher.fallback_twiml();
        // Without a fallback text, the message of a fallback call gets no reply at all, so it becomes dead.
        let last_attempt = self.fallback && fallback_text.is_empty();
        let unattended = self.is_unattended();
        let recorded = dispatcher
            .store
            .record_failure(claim, reason, last_attempt)
            .await;
        // Only the process whose update made the message dead reports it, so each is counted once.
        if matches!(recorded, Ok(FailOutcome::Dead)) {
            dispatcher.report_dead(DeadMessage {
                sid: origin.sid,
                reason: dead,
            });
        }
        if unattended {
            dispatcher.metrics.late_failures.increment(1);
        }
        let outcome = match recorded {
            Ok(FailOutcome::AlreadyAnswered(response)) => {
                DispatchOutcome::Reply(Document::from_saved(response.twiml))
            }
            // Nothing retries a dead message, so a fallback call gets the empty response.
            Ok(FailOutcome::Dead) if self.fallback => DispatchOutcome::Reply(Document::empty()),
            Ok(FailOutcome::Retryable | FailOutcome::ClaimLost) if self.fallback => {
                self.decide_fallback_text(claim, fallback_text, failure)
                    .await
            }
            Ok(_) => DispatchOutcome::Failed(failure),
            // The claim may remain in the store. `store_failed` makes the backlog release it as stale.
            Err(error) => {
                dispatcher.store_failed("record_failure", &error);
                DispatchOutcome::Failed(failure)
            }
        };
        self.tell(outcome);
    }

    /// Makes the fallback text the response to a message, unless another process has decided it.
    async fn decide_fallback_text(
        &self,
        claim: Claim,
        text: String,
        failure: HandlerFailure,
    ) -> DispatchOutcome {
        let now = self.dispatcher.clock.now();
        let choice = ReplyPath::Twiml(text);
        match self.dispatcher.store.decide(claim.id, choice, now).await {
            Ok(ReplyDecision::Inline(response)) => {
                DispatchOutcome::Reply(Document::from_saved(response.twiml))
            }
            Ok(ReplyDecision::ViaRest) => DispatchOutcome::Reply(Document::empty()),
            Ok(ReplyDecision::ClaimLost) => DispatchOutcome::Failed(failure),
            Err(error) => {
                self.dispatcher.store_failed("decide", &error);
                DispatchOutcome::Failed(failure)
            }
        }
    }
}
