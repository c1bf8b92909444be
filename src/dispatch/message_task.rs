//! Task of one inbound message: the order of its steps.

use std::sync::Arc;

use super::blocked_messages::{apply_guard, log_handed_off};
use super::deadlines::Deadlines;
use super::dispatcher::Dispatcher;
use super::handler_call::call_handler;
use super::origin::Origin;
use super::outcome::{DispatchOutcome, HandlerFailure};
use super::pending::{AcceptedMessage, Responder};
use super::permit::HandlerPermit;
use super::save_reply::ReplySaver;
use super::waiting::Wakeup;
use super::webhook_kind::WebhookKind;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::MessageSid;
use crate::signature::AuthTokenKind;
use crate::store::{
    AcceptOutcome, BacklogMessage, Claim, Completion, NewInbound, ReplyDecision, ReplyPath,
    TurnStatus,
};
use crate::telemetry::catch_panic;
use crate::twiml::Document;

/// Limit of messages ahead: with fewer, a message waits for its turn in its request. Otherwise its reply goes via the
/// REST API.
const WAITING_IN_LINE: u32 = 20;

/// Task of one message, with its end of the handshake with the request.
pub(super) struct MessageTask {
    dispatcher: Arc<Dispatcher>,
    responder: Responder,
    deadlines: Deadlines,
    kind: WebhookKind,
}

impl MessageTask {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        responder: Responder,
        deadlines: Deadlines,
        kind: WebhookKind,
    ) -> Self {
        Self {
            dispatcher,
            responder,
            deadlines,
            kind,
        }
    }

    /// Processes a message of a request, from accepting it to its reply.
    // Futures of rare cases are boxed, to keep this one small: it is allocated for every message.
    pub(super) async fn run(
        self,
        message: Box<InboundMessage>,
        auth_token: AuthTokenKind,
        permit: HandlerPermit,
    ) {
        let dispatcher = self.dispatcher.clone();
        let inbound = dispatcher.new_inbound(&message, auth_token);
        match self.accept(&inbound).await {
            None => {}
            Some(AcceptOutcome::Claimed(claim)) => {
                self.publish_accepted(claim.id, claim.failed_before).await;
                self.process(claim, message, auth_token, Some(permit)).await;
            }
            Some(AcceptOutcome::Queued {
                id,
                conversation,
                ahead,
            }) => {
                self.publish_accepted(id, false).await;
                // A message that waits for its turn runs no handler, so it needs no permit.
                drop(permit);
                let turn = Box::pin(self.wait_for_turn(id, conversation, ahead));
                if let Some(claim) = turn.await {
                    // The message is claimed, so its handler runs even without a permit.
                    let permit = dispatcher.permits.try_acquire();
                    self.process(claim, message, auth_token, permit).await;
                }
            }
            // Unreachable: `wait_for_decision` polls until the message leaves this state.
            Some(AcceptOutcome::InProgress { .. }) => self.resolve(DispatchOutcome::Unavailable),
            Some(AcceptOutcome::AlreadyAnswered(response)) => {
                let document = Document::from_stored(response.twiml);
                self.resolve(DispatchOutcome::Duplicate(document));
            }
            Some(AcceptOutcome::OptedOut) => {
                self.resolve(DispatchOutcome::OptedOut);
                Box::pin(dispatcher.opt_out_log.explain_inbound(&message)).await;
            }
            Some(AcceptOutcome::ConsentKeyword { confirmation, .. }) => {
                let consent = &dispatcher.consent;
                Box::pin(consent.confirm_via_rest(&message, auth_token)).await;
                self.confirm_consent(*message, &inbound, confirmation);
            }
        }
    }

    /// Processes a claimed message of the backlog.
    pub(super) async fn run_claimed(
        self,
        message: Box<InboundMessage>,
        backlog_message: BacklogMessage,
        permit: Option<HandlerPermit>,
    ) {
        let BacklogMessage {
            claim, auth_token, ..
        } = backlog_message;
        self.process(claim, message, auth_token, permit).await;
    }

    /// Sends the outcome to the request.
    fn resolve(&self, outcome: DispatchOutcome) {
        let _ = self.responder.resolve(outcome);
    }

    /// Stores the message. Returns `None` if there is nothing left to do.
    async fn accept(&self, inbound: &Arc<NewInbound>) -> Option<AcceptOutcome> {
        let dispatcher = &self.dispatcher;
        let has_answered = || {
            let outage = &dispatcher.outage;
            outage.has_answered(inbound.account, inbound.sid)
        };
        // Check before and after `accept`. The backlog may flush the fallback reply after the store has accepted the
        // message and before this task resumes; then only the check before finds it.
        let was_answered_before = has_answered();
        crate::crash_point!("P1");
        let accepted = dispatcher.store.accept(inbound.clone()).await;
        crate::crash_point!("P3");
        let outcome = match accepted {
            Ok(outcome) => outcome,
            Err(error) => {
                dispatcher.monitor.report_failure("accept", &error);
                dispatcher
                    .monitor
                    .report
                    .health
                    .record_rejected(inbound.sid);
                self.resolve(DispatchOutcome::Unavailable);
                return None;
            }
        };
        // If the request has already ended, a late success does not show that the store is healthy.
        if self.responder.is_attended() {
            dispatcher.monitor.report.health.record_stored();
        }
        let outcome = match outcome {
            AcceptOutcome::InProgress { id } => {
                Box::pin(self.wait_for_decision(id, inbound)).await?
            }
            outcome => outcome,
        };
        // The message was stored after its fallback call had received the fallback text during the outage. A second
        // reply must not follow: the backlog has written that text as the reply, or is about to.
        let is_new = matches!(
            outcome,
            AcceptOutcome::Claimed(_) | AcceptOutcome::Queued { .. }
        );
        if is_new && (was_answered_before || has_answered()) {
            self.resolve(DispatchOutcome::Unavailable);
            dispatcher.backlog.notify_one();
            return None;
        }
        Some(outcome)
    }

    /// Publishes that the message is stored. If its request gave up before, the reply goes via the REST API.
    // That request has responded with 503, and Twilio then calls the fallback URL. The message is deferred, so that call
    // gets the empty response.
    async fn publish_accepted(&self, id: i64, failed_before: bool) {
        if self
            .responder
            .accepted(AcceptedMessage { id, failed_before })
        {
            return;
        }
        let dispatcher = &self.dispatcher;
        let now = dispatcher.clock.now();
        if let Err(error) = dispatcher.store.decide(id, ReplyPath::Rest, now).await {
            dispatcher.monitor.report_failure("decide", &error);
        }
    }

    /// Waits until the message of a redelivery is decided or claimable, because another task is processing it.
    ///
    /// Returns `None` if the request has ended.
    async fn wait_for_decision(&self, id: i64, inbound: &Arc<NewInbound>) -> Option<AcceptOutcome> {
        // The message is stored, so from here on the deadline of this request can decide its reply path.
        let accepted = AcceptedMessage {
            id,
            failed_before: false,
        };
        if !self.responder.accepted(accepted) {
            return None;
        }
        let dispatcher = &self.dispatcher;
        let mut ticket = dispatcher.waiting.join(Wakeup::Decision(id));
        let decided = ticket.poll(self.responder.request_ended(), || async {
            match dispatcher.store.accept(inbound.clone()).await {
                Ok(AcceptOutcome::InProgress { .. }) => None,
                other => Some(other),
            }
        });
        // `None`: the request decided the reply path at its deadline, or its connection was closed.
        match decided.await? {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                dispatcher.monitor.report_failure("accept", &error);
                self.resolve(DispatchOutcome::Unavailable);
                None
            }
        }
    }

    /// Waits until no older message of the conversation is open, and claims the message.
    ///
    /// Returns `None` if the message is decided, or left to the backlog.
    async fn wait_for_turn(&self, id: i64, conversation: i64, ahead: u32) -> Option<Claim> {
        let dispatcher = &self.dispatcher;
        // Keeps `release_stale_claims` from releasing the message while it waits.
        let _held = dispatcher.held.hold(id);
        let turn = if ahead < WAITING_IN_LINE {
            self.poll_turn(id, conversation).await
        } else {
            Turn::RequestEnded
        };
        match turn {
            Turn::Is(TurnStatus::Claimed(claim)) => return Some(claim),
            Turn::Is(TurnStatus::Resolved(ReplyDecision::Inline(response))) => {
                let document = Document::from_stored(response.twiml);
                self.resolve(DispatchOutcome::Duplicate(document));
                return None;
            }
            Turn::Is(TurnStatus::Resolved(ReplyDecision::ClaimLost)) => {
                self.resolve(DispatchOutcome::Late);
                return None;
            }
            Turn::StoreFailed => self.resolve(DispatchOutcome::Unavailable),
            // At its deadline the request decided for the REST API, or its connection was closed.
            Turn::Is(TurnStatus::Resolved(ReplyDecision::ViaRest) | TurnStatus::Waiting)
            | Turn::RequestEnded => {}
        }
        self.leave_to_backlog(id, conversation).await;
        None
    }

    /// Polls the turn of a queued message until its turn has come, it is resolved, or its request has ended.
    async fn poll_turn(&self, id: i64, conversation: i64) -> Turn {
        let dispatcher = &self.dispatcher;
        let mut ticket = dispatcher.waiting.join(Wakeup::Turn(conversation));
        let (store, clock) = (&dispatcher.store, &dispatcher.clock);
        let turn = ticket.poll(self.responder.request_ended(), || async {
            match store.try_claim(id, clock.now()).await {
                Ok(TurnStatus::Waiting) => None,
                other => Some(other),
            }
        });
        match turn.await {
            None => Turn::RequestEnded,
            Some(Ok(status)) => Turn::Is(status),
            Some(Err(error)) => {
                dispatcher.monitor.report_failure("try_claim", &error);
                Turn::StoreFailed
            }
        }
    }

    /// Defers a queued message: too many messages are ahead, its request has ended, or the store failed. The backlog
    /// handles it when its turn comes.
    async fn leave_to_backlog(&self, id: i64, conversation: i64) {
        let dispatcher = &self.dispatcher;
        let now = dispatcher.clock.now();
        // `deferred` is a hint: it makes the end of a message in this conversation wake the backlog. Before the decision: as
        // soon as that is stored, the backlog may claim the message and remove the hint.
        dispatcher.deferred.add(conversation, id);
        match dispatcher.store.decide(id, ReplyPath::Rest, now).await {
            Ok(_) => self.resolve(DispatchOutcome::Late),
            Err(error) => {
                dispatcher.monitor.report_failure("decide", &error);
                self.resolve(DispatchOutcome::Unavailable);
            }
        }
        // Also after an error: the decision may have been stored.
        dispatcher.backlog.notify_one();
    }

    /// Responds to a consent keyword, and reports it.
    fn confirm_consent(&self, message: InboundMessage, inbound: &NewInbound, confirmation: String) {
        let dispatcher = &self.dispatcher;
        crate::crash_point!("P14");
        let confirmation = Some(confirmation).filter(|text| !text.is_empty());
        self.resolve(DispatchOutcome::ConsentConfirmation(Document::from_stored(
            confirmation,
        )));
        if let Some(keyword) = &inbound.consent {
            dispatcher.consent.report_change(message, keyword);
        }
    }

    /// Processes a claimed message. After a panic outside of the handler, the attempt counts as failed: otherwise the
    /// message would stay claimed, without a task, until the next start.
    async fn process(
        self,
        claim: Claim,
        message: Box<InboundMessage>,
        auth_token: AuthTokenKind,
        permit: Option<HandlerPermit>,
    ) {
        // Until the outcome is saved, which can take as long as an outage, `release_stale_claims` must
        // not release the claim.
        let _held = self.dispatcher.held.hold(claim.id);
        let origin = Origin::of(&message, auth_token);
        let handled = self.handle_and_save(claim, message, &origin, auth_token, permit);
        let handled = catch_panic(&self.dispatcher.metrics, "message", handled);
        if handled.await.is_none() {
            let failed = Err(HandlerFailure::Panic);
            Box::pin(self.save(claim, &origin, failed, Vec::new(), &[])).await;
            self.wake_successors(claim, Vec::new());
        }
    }

    /// Runs the handler, unless the guard blocks the message or the conversation is handed off, and saves the outcome.
    async fn handle_and_save(
        &self,
        claim: Claim,
        mut message: Box<InboundMessage>,
        origin: &Origin,
        auth_token: AuthTokenKind,
        permit: Option<HandlerPermit>,
    ) {
        let dispatcher = &self.dispatcher;
        crate::panic_point!("message.process");
        let (mut merged, mut merged_sids) = (Vec::new(), Vec::new());
        let outcome = if let Some(blocked) = apply_guard(dispatcher, claim, &message).await {
            Ok(blocked)
        } else if let Some(redirect) = dispatcher.handoffs.redirect(claim).await {
            if redirect.is_ok() {
                log_handed_off(&dispatcher.guard, claim, &message);
            }
            redirect
        } else {
            if dispatcher.debounce.is_enabled() {
                merged = Box::pin(dispatcher.debounce.merge_burst(
                    claim,
                    &mut message,
                    &self.deadlines,
                ))
                .await;
                merged_sids.clone_from(&message.merged);
            }
            let kind = self.kind.clone();
            call_handler(
                dispatcher,
                claim,
                message,
                origin,
                auth_token,
                kind,
                &self.deadlines,
            )
            .await
        };
        // The permit limits handlers. Saving the reply may wait for the store, and must not block other handlers.
        drop(permit);
        // Boxed: the task of a message waits for its handler most of its time, and should not reserve memory for what
        // comes after it.
        Box::pin(self.save(claim, origin, outcome, merged.clone(), &merged_sids)).await;
        self.wake_successors(claim, merged);
    }

    /// Wakes the tasks that wait for the end of this message, and of those that were merged into it.
    fn wake_successors(&self, claim: Claim, merged: Vec<i64>) {
        let dispatcher = &self.dispatcher;
        // Merged messages are completed together with this one, so requests that wait for them have to check again.
        for id in merged {
            dispatcher.deferred.remove(claim.conversation, id);
            dispatcher.waiting.wake(Wakeup::Decision(id));
        }
        dispatcher.waiting.wake(Wakeup::Decision(claim.id));
        dispatcher.waiting.wake(Wakeup::Turn(claim.conversation));
        // The next message of the conversation may be one that no request waits for.
        if matches!(self.kind, WebhookKind::Backlog)
            || dispatcher.deferred.contains(claim.conversation)
        {
            dispatcher.backlog.notify_one();
        }
    }

    /// Saves the outcome of a handler, and sends it to the request if that still waits.
    async fn save(
        &self,
        claim: Claim,
        origin: &Origin,
        outcome: Result<(Reply, Completion), HandlerFailure>,
        merged: Vec<i64>,
        merged_sids: &[MessageSid],
    ) {
        let dispatcher = &self.dispatcher;
        let saver = ReplySaver {
            dispatcher,
            responder: &self.responder,
            claim,
            origin,
            merged: merged_sids,
            is_fallback: self.kind.is_fallback(),
            received: self.deadlines.received,
        };
        match outcome {
            Ok((reply, completion)) => {
                // A message to another user is not a turn of this conversation, so it does not
                // count for loop detection.
                let mut messages = reply.messages().iter();
                if messages.any(|reply| !reply.is_empty() && origin.is_sent_to_author(reply)) {
                    let now = dispatcher.clock.now();
                    dispatcher.guard.count_reply(claim.conversation, now);
                }
                let completion = Completion {
                    merged,
                    ..completion
                };
                saver.save(reply, completion).await;
            }
            Err(failure) => Box::pin(saver.record_failure(failure)).await,
        }
    }
}

/// State of a queued message.
enum Turn {
    Is(TurnStatus),
    StoreFailed,
    /// No request waits for the turn.
    RequestEnded,
}
