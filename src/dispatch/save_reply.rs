//! Saves the outcome of a handler: its reply or its failure.

use std::fmt;
use std::time::Duration;

use super::dead_messages::report_dead;
use super::dispatcher::Dispatcher;
use super::origin::Origin;
use super::outcome::{DispatchOutcome, HandlerFailure};
use super::pending::Responder;
use super::reply_plan::{ReplyPlan, reply_plan};
use crate::reply::{Reply, WireMessage};
use crate::sid::MessageSid;
use crate::store::{
    Claim, Completion, DeadMessage, DeadReason, FailOutcome, HANDLER_FAILED, HANDLER_PANICKED,
    NewOutbound, ReplyDecision, ReplyPath, SavedResponse,
};
use crate::twiml::{Document, count_invalid_chars};

/// Pauses between attempts to save a reply while the store is unavailable. The last one repeats.
const RETRY: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// A claimed message whose outcome is to be saved.
pub(super) struct ReplySaver<'a> {
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) responder: &'a Responder,
    pub(super) claim: Claim,
    pub(super) origin: &'a Origin,
    /// Messages that were merged into this one.
    pub(super) merged: &'a [MessageSid],
    pub(super) is_fallback: bool,
    /// Time of receipt by [`Clock::monotonic`](crate::clock::Clock::monotonic).
    pub(super) received: Duration,
}

impl ReplySaver<'_> {
    /// Saves a reply and sends it: in the response if that is still possible, else via the REST API.
    pub(super) async fn save(&self, reply: Reply, completion: Completion) {
        let dispatcher = self.dispatcher;
        let reply = dispatcher.limits.formatted(reply);
        let reply = if reply.has_media() {
            let channel = self.origin.user.channel();
            let message = (self.origin.account, self.origin.sid);
            match dispatcher.files.publish(reply, channel, message).await {
                Ok(reply) => reply,
                Err(error) => return Box::pin(self.reject_reply(error)).await,
            }
        } else {
            reply
        };
        let messages = self.wire_messages(&reply);
        let mut is_attended = self.responder.is_attended();
        loop {
            let public_url = &dispatcher.public_url;
            match reply_plan(
                &reply,
                &messages,
                &completion,
                self.origin,
                public_url,
                is_attended,
                dispatcher.limits.is_rest_only,
            ) {
                ReplyPlan::Twiml(document) => {
                    // A redirect cannot go via the REST API, so it waits for no older reply.
                    let keeps_order = reply.redirect_target().is_none();
                    let completed = self.complete_inline(document, &completion, keeps_order);
                    if completed.await {
                        return;
                    }
                    is_attended = false;
                }
                ReplyPlan::Rest(outbound) => {
                    crate::crash_point!("P9.done");
                    self.count_invalid_chars(&messages);
                    if completion.handoff.is_some() && reply.redirect_target().is_some() {
                        tracing::warn!(message_sid = %self.origin.sid, "the conversation is handed off, but its reply goes via the REST API, which cannot redirect this message; later messages are redirected");
                    }
                    return Box::pin(self.complete_via_rest(outbound, completion)).await;
                }
                ReplyPlan::RedirectTooLate => {
                    let reason = "it is a redirect and came too late; the REST API cannot redirect";
                    return Box::pin(self.reject_reply(reason)).await;
                }
                ReplyPlan::RedirectWithMessages => {
                    let reason = "it is a redirect with messages that go via the REST API, which cannot redirect; let the handler send the redirect alone";
                    return Box::pin(self.reject_reply(reason)).await;
                }
                ReplyPlan::Invalid(error) => return Box::pin(self.reject_reply(error)).await,
            }
        }
    }

    /// Splits a reply into the messages that either path sends. A reply of too many messages is cut, so that a handler
    /// that does not limit its text cannot flood its user.
    fn wire_messages<'a>(&self, reply: &'a Reply) -> Vec<WireMessage<'a>> {
        let limit = self.dispatcher.limits.max_messages;
        let wire = reply.wire_messages(self.origin.user.channel(), limit);
        if wire.is_cut {
            self.dispatcher.metrics.replies_truncated.inc();
            tracing::warn!(
                message_sid = %self.origin.sid,
                limit,
                "the reply has more messages than reply.max_messages and was cut"
            );
        }
        wire.messages
    }

    /// Counts characters that a message via the REST API has replaced. `Document` counts those of a response.
    fn count_invalid_chars(&self, messages: &[WireMessage<'_>]) {
        let texts = messages.iter().map(|message| &*message.text);
        let replaced: usize = texts.map(count_invalid_chars).sum();
        self.dispatcher
            .metrics
            .invalid_xml_chars
            .inc_by(replaced as u64);
    }

    /// Saves a reply as the response, and sends it. Returns false if the reply has to go via the REST API.
    async fn complete_inline(
        &self,
        document: Document,
        completion: &Completion,
        keeps_order: bool,
    ) -> bool {
        let dispatcher = self.dispatcher;
        let is_empty = document == Document::empty();
        crate::crash_point!("P5");
        let completion = Completion {
            // An empty reply overtakes none.
            keeps_order: keeps_order && !is_empty,
            ..completion.clone()
        };
        let now = dispatcher.clock.now();
        let saved = dispatcher
            .store
            .complete_inline(self.claim, document.to_stored(), completion, now)
            .await;
        match saved {
            Ok(ReplyDecision::Inline(SavedResponse { twiml })) => {
                // Only now: a reply that goes via the REST API after all is counted there.
                let replaced = document.replaced() as u64;
                dispatcher.metrics.invalid_xml_chars.inc_by(replaced);
                // The store has saved the empty response, because the user opted out while the handler ran.
                if twiml.is_none() && !is_empty {
                    dispatcher.metrics.suppressed.inc();
                }
                crate::crash_point!("P6");
                let document = Document::from_stored(twiml);
                let _ = self.responder.resolve(DispatchOutcome::Reply(document));
                true
            }
            Ok(ReplyDecision::ViaRest) => false,
            Ok(ReplyDecision::ClaimLost) => {
                self.discard();
                true
            }
            Err(error) => {
                // The reply may or may not be saved, so it must not be sent now. The request gets a 503. Afterwards
                // `complete_via_rest` queues the reply unless it was saved, or was replaced by a fallback text.
                dispatcher.monitor.report_failure("complete_inline", &error);
                let is_sent = self.responder.resolve(DispatchOutcome::Unavailable);
                // A fallback call responds with the fallback text now and buffers it for the store, so this reply would
                // be a second one. If it does not get that far, `release_stale_claims` frees the claim.
                let is_replaced =
                    is_sent && self.is_fallback && dispatcher.fallback.twiml != Document::empty();
                if is_replaced {
                    dispatcher.metrics.replies_superseded.inc();
                }
                is_replaced
            }
        }
    }

    /// Puts a reply into the outbox. Repeats this until the store has done it.
    async fn complete_via_rest(&self, outbound: Vec<NewOutbound>, completion: Completion) {
        let dispatcher = self.dispatcher;
        let mut pauses = RETRY.into_iter();
        loop {
            // After a failure of the store, Twilio may have called the fallback URL of another server, which sent the
            // fallback text. That server has to write it to the store first: the store then finds the claim lost. A
            // fallback text of this server is found by the check below. In a loop, because the store may fail again.
            while let Some(until) = dispatcher.outage.rest_held_until(self.received) {
                dispatcher.clock.sleep_until_monotonic(until).await;
            }
            let outage = &dispatcher.outage;
            if outage.has_answered(self.origin.account, self.origin.sid) {
                return self.discard();
            }
            let now = dispatcher.clock.now();
            let completed = dispatcher
                .store
                .complete_via_rest(self.claim, outbound.clone(), completion.clone(), now)
                .await;
            match completed {
                Ok(true) => {
                    crate::crash_point!("P10");
                    dispatcher.outbox.notify_one();
                    let _ = self.responder.resolve(DispatchOutcome::ByRest);
                    return;
                }
                Ok(false) => return self.discard(),
                Err(error) => dispatcher
                    .monitor
                    .report_failure("complete_via_rest", &error),
            }
            // The request gets its 503 now.
            let _ = self.responder.resolve(DispatchOutcome::Unavailable);
            // tokio's clock, not `dispatcher.clock`: advancing a test clock does not make the store recover.
            tokio::time::sleep(pauses.next().unwrap_or(RETRY[RETRY.len() - 1])).await;
        }
    }

    /// Discards a reply whose claim is lost: another process, or a fallback call, replies instead.
    fn discard(&self) {
        self.dispatcher.metrics.replies_superseded.inc();
        tracing::warn!(message_sid = %self.origin.sid, "reply not queued: the message already has a response, or another process holds its claim");
        let _ = self
            .responder
            .resolve(DispatchOutcome::Duplicate(Document::empty()));
    }

    /// Treats a reply that cannot be sent as a failure of the handler.
    async fn reject_reply(&self, error: impl fmt::Display) {
        tracing::error!(message_sid = %self.origin.sid, %error, "the reply cannot be sent");
        // Before the request gets its outcome: its client may read the reason next.
        if let Some(hook) = &self.dispatcher.on_rejected_reply {
            let reason = format!("the reply cannot be sent: {error}");
            let sids = std::iter::once(&self.origin.sid).chain(self.merged);
            sids.for_each(|sid| hook(*sid, &reason));
        }
        self.record_failure(HandlerFailure::Error).await;
    }

    /// Records a failed attempt and sends its outcome. A fallback call gets the fallback text, since
    /// no request follows it.
    pub(super) async fn record_failure(&self, failure: HandlerFailure) {
        let dispatcher = self.dispatcher;
        let (reason, dead_reason) = match failure {
            HandlerFailure::Error => (HANDLER_FAILED, DeadReason::HandlerFailed),
            HandlerFailure::Panic => (HANDLER_PANICKED, DeadReason::HandlerPanicked),
        };
        let fallback_text = dispatcher.fallback.stored_twiml();
        // Without a fallback text, the message of a fallback call gets no reply at all, so it becomes dead.
        let is_last_attempt = self.is_fallback && fallback_text.is_empty();
        if !self.responder.is_attended() {
            dispatcher.metrics.late_failures.inc();
        }
        if self.is_fallback
            && let Some(text) = &dispatcher.fallback.rest
        {
            let outbound = self.origin.outbound_of(&Reply::text(text.as_str()));
            let completion = Completion {
                reason: Some(reason),
                ..Completion::default()
            };
            return Box::pin(self.complete_via_rest(outbound, completion)).await;
        }
        let now = dispatcher.clock.now();
        let recorded = dispatcher
            .store
            .record_failure(self.claim, reason, is_last_attempt, now)
            .await;
        // Only the process whose update made the message dead reports it, so each is counted once.
        if matches!(recorded, Ok(FailOutcome::Dead)) {
            report_dead(
                &dispatcher.metrics,
                DeadMessage {
                    sid: self.origin.sid,
                    reason: dead_reason,
                },
            );
        }
        let outcome = match recorded {
            Ok(FailOutcome::AlreadyAnswered(response)) => {
                DispatchOutcome::Reply(Document::from_stored(response.twiml))
            }
            // Nothing retries a dead message, so a fallback call gets the empty response.
            Ok(FailOutcome::Dead) if self.is_fallback => DispatchOutcome::Reply(Document::empty()),
            Ok(FailOutcome::Retryable | FailOutcome::ClaimLost) if self.is_fallback => {
                self.decide_fallback_text(fallback_text, failure).await
            }
            Ok(_) => DispatchOutcome::Failed(failure),
            // The claim may remain in the store. The backlog releases it as stale.
            Err(error) => {
                dispatcher.monitor.report_failure("record_failure", &error);
                DispatchOutcome::Failed(failure)
            }
        };
        let _ = self.responder.resolve(outcome);
    }

    /// Makes the fallback text the response to a message, unless another process has decided it.
    async fn decide_fallback_text(&self, text: String, failure: HandlerFailure) -> DispatchOutcome {
        let now = self.dispatcher.clock.now();
        let path = ReplyPath::Twiml(text);
        match self.dispatcher.store.decide(self.claim.id, path, now).await {
            Ok(ReplyDecision::Inline(response)) => {
                DispatchOutcome::Reply(Document::from_stored(response.twiml))
            }
            Ok(ReplyDecision::ViaRest) => DispatchOutcome::Reply(Document::empty()),
            Ok(ReplyDecision::ClaimLost) => DispatchOutcome::Failed(failure),
            Err(error) => {
                self.dispatcher.monitor.report_failure("decide", &error);
                DispatchOutcome::Failed(failure)
            }
        }
    }
}
