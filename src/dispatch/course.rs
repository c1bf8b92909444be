//! Task of one inbound message.

mod outcome;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::conversing::{ConversationStore, Inbound, change};
use super::origin::Origin;
use super::waiting::Wakeup;
use super::{
    Arrived, ConsentChange, ConsentKind, DispatchOutcome, Dispatcher, HandlerFailure, Slot,
    TaskProgress, WAITING_IN_LINE, WebhookKind, within,
};
use crate::address::Channel;
use crate::handler::{Context, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::signature::AuthTokenKind;
use crate::store::{
    AcceptOutcome, BacklogMessage, Claim, Completion, NewInbound, ReplyDecision, ReplyPath,
    TurnStatus,
};
use crate::twiml::Document;

/// Task of one message, with what it needs to respond to the message's request.
pub(super) struct Course {
    dispatcher: Arc<Dispatcher>,
    progress: Arc<TaskProgress>,
    /// Channel to the request; `None` once the outcome was sent, for a message of the backlog, and if the request gave
    /// up before the message was stored.
    decided: Option<oneshot::Sender<DispatchOutcome>>,
    arrived: Arrived,
    fallback: bool,
}

impl Course {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        progress: Arc<TaskProgress>,
        decided: oneshot::Sender<DispatchOutcome>,
        arrived: Arrived,
    ) -> Self {
        Self {
            dispatcher,
            progress,
            decided: Some(decided),
            arrived,
            fallback: false,
        }
    }

    /// Creates a task that no request waits for.
    pub(super) fn unattended(dispatcher: Arc<Dispatcher>, arrived: Arrived) -> Self {
        Self {
            dispatcher,
            progress: Arc::default(),
            decided: None,
            arrived,
            fallback: false,
        }
    }

    /// Sends the outcome to the request. Only the first outcome is sent.
    fn tell(&mut self, dispatched: DispatchOutcome) {
        if let Some(decided) = self.decided.take() {
            // An error means that the request has ended: it responded at its deadline, or its connection was closed.
            let _ = decided.send(dispatched);
        }
    }

    /// Returns whether no request waits for the outcome.
    fn is_unattended(&self) -> bool {
        self.decided.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Processes a message from accepting it to its reply.
    // Futures of rare cases are boxed, to keep this one small: it is allocated for every message.
    pub(super) async fn run(
        mut self,
        message: Box<InboundMessage>,
        slot: AuthTokenKind,
        road: WebhookKind,
        place: Slot,
    ) {
        self.fallback = matches!(road, WebhookKind::Fallback(_));
        let arrival = self.dispatcher.arrival(&message, slot);
        let (account, sid) = (arrival.account, arrival.sid);
        let dispatcher = self.dispatcher.clone();
        let is_told = || dispatcher.state.outage.has_answered(account, sid);
        // Check before and after `accept`. The backlog may flush the fallback reply after the store has accepted the
        // message and before this task resumes; then only the check before finds it.
        let was_told = is_told();
        crate::crash_point!("P1");
        let mut acceptance = self.accept(&arrival).await;
        crate::crash_point!("P3");
        if let Some(AcceptOutcome::InProgress { id }) = acceptance {
            acceptance = Box::pin(self.wait_for_decision(id, &arrival)).await;
        }
        match acceptance {
            None => {}
            // The message was stored after its fallback call had received the fallback text during the outage. A second
            // reply must not follow: the backlog has written that text as the reply, or is about to.
            Some(AcceptOutcome::Claimed(_) | AcceptOutcome::Queued { .. })
                if was_told || is_told() =>
            {
                self.tell(DispatchOutcome::Unavailable);
                self.dispatcher.state.backlog.notify_one();
            }
            Some(AcceptOutcome::Claimed(claim)) => {
                self.began(claim.id, claim.failed_before).await;
                self.attempt(claim, message, slot, road, Some(place)).await;
            }
            Some(AcceptOutcome::Queued {
                id,
                conversation,
                ahead,
            }) => {
                self.began(id, false).await;
                // A message that waits for its turn runs no handler, so it needs no permit.
                drop(place);
                let turn = Box::pin(self.wait_for_turn(id, conversation, ahead));
                if let Some(claim) = turn.await {
                    // The message is claimed, so its handler runs even without a permit.
                    let place = Slot::take(&self.dispatcher);
                    self.attempt(claim, message, slot, road, place).await;
                }
            }
            // Unreachable: `wait_for_decision` polls until the message leaves this state.
            Some(AcceptOutcome::InProgress { .. }) => self.tell(DispatchOutcome::Unavailable),
            Some(AcceptOutcome::AlreadyAnswered(answered)) => {
                self.tell(DispatchOutcome::Duplicate(Document::from_saved(
                    answered.twiml,
                )));
            }
            Some(AcceptOutcome::OptedOut) => self.tell(DispatchOutcome::OptedOut),
            Some(AcceptOutcome::ConsentKeyword {
                confirmation: answer,
                ..
            }) => {
                crate::crash_point!("P14");
                let answer = Some(answer).filter(|answer| !answer.is_empty());
                self.tell(DispatchOutcome::ConsentConfirmation(Document::from_saved(
                    answer,
                )));
                if let Some(consent) = &arrival.consent {
                    let kind = ConsentKind::of(consent);
                    self.dispatcher.metrics.consent(kind.as_str());
                    if kind == ConsentKind::OptOut {
                        self.dispatcher.opted_out.notify_one();
                    }
                }
                Box::pin(self.tell_consent(*message, &arrival)).await;
            }
        }
    }

    /// Processes a claimed message of the backlog.
    pub(super) async fn take_over(
        self,
        message: Box<InboundMessage>,
        taken: BacklogMessage,
        place: Option<Slot>,
    ) {
        // As a primary call: the cause of a fallback call is not stored.
        self.attempt(
            taken.claim,
            message,
            taken.auth_token,
            WebhookKind::Primary,
            place,
        )
        .await;
    }

    /// Accepts the message. Returns `None` if the store failed.
    async fn accept(&mut self, arrival: &Arc<NewInbound>) -> Option<AcceptOutcome> {
        match self.dispatcher.store.accept(arrival.clone()).await {
            Ok(acceptance) => {
                // If the request has already ended, a late success does not show that the store is healthy.
                if !self.is_unattended() {
                    self.dispatcher.store_report.health.kept();
                }
                Some(acceptance)
            }
            Err(error) => {
                self.dispatcher.store_failed("accept", &error);
                self.dispatcher.store_report.health.rejected(arrival.sid);
                self.tell(DispatchOutcome::Unavailable);
                None
            }
        }
    }

    /// Publishes that the message is stored. If its request gave up before, the reply goes via the REST API.
    // That request has responded 503, and Twilio then calls the fallback URL. The message is deferred, so that call
    // gets the empty response.
    async fn began(&mut self, id: i64, failed_before: bool) {
        if self.progress.accepted(id, failed_before) {
            return;
        }
        self.decided = None;
        let now = self.dispatcher.clock.now();
        if let Err(error) = self.dispatcher.store.decide(id, ReplyPath::Rest, now).await {
            self.dispatcher.store_failed("decide", &error);
        }
    }

    /// Waits until the message of a redelivery is decided or claimable, because another task is processing it.
    async fn wait_for_decision(
        &mut self,
        id: i64,
        arrival: &Arc<NewInbound>,
    ) -> Option<AcceptOutcome> {
        // The message is stored, so from here on the deadline of this request can decide its reply path.
        if !self.progress.accepted(id, false) {
            return None;
        }
        let dispatcher = self.dispatcher.clone();
        let mut ticket = dispatcher.state.waiting.join(Wakeup::Decision(id));
        let gone = self.decided.as_mut()?;
        let store = &dispatcher.store;
        let look = ticket.look(|| async {
            match store.accept(arrival.clone()).await {
                Ok(AcceptOutcome::InProgress { .. }) => None,
                other => Some(other),
            }
        });
        let seen = tokio::select! {
            seen = look => seen,
            // The request has ended. Either it decided the reply path at its deadline, or its connection was closed.
            () = gone.closed() => return None,
        };
        match seen {
            Ok(acceptance) => Some(acceptance),
            Err(error) => {
                dispatcher.store_failed("accept", &error);
                self.tell(DispatchOutcome::Unavailable);
                None
            }
        }
    }

    /// Waits until no older message of the conversation is open, and claims the message.
    ///
    /// Returns `None` if the message is decided, or left to the backlog.
    async fn wait_for_turn(&mut self, id: i64, conversation: i64, ahead: u32) -> Option<Claim> {
        let dispatcher = self.dispatcher.clone();
        // Keeps `release_stale_claims` from releasing the message while it waits.
        let _held = dispatcher.state.held.hold(id);
        if ahead < WAITING_IN_LINE
            && let Some(gone) = self.decided.as_mut()
        {
            let mut ticket = dispatcher.state.waiting.join(Wakeup::Turn(conversation));
            let (store, clock) = (&dispatcher.store, &dispatcher.clock);
            let look = ticket.look(|| async {
                match store.try_claim(id, clock.now()).await {
                    Ok(TurnStatus::Waiting) => None,
                    other => Some(other),
                }
            });
            let seen = tokio::select! {
                seen = look => Some(seen),
                () = gone.closed() => None,
            };
            match seen {
                Some(Ok(TurnStatus::Claimed(claim))) => return Some(claim),
                Some(Ok(TurnStatus::Resolved(ReplyDecision::Inline(answered)))) => {
                    self.tell(DispatchOutcome::Duplicate(Document::from_saved(
                        answered.twiml,
                    )));
                    return None;
                }
                Some(Ok(TurnStatus::Resolved(ReplyDecision::ClaimLost))) => {
                    self.tell(DispatchOutcome::Late);
                    return None;
                }
                Some(Err(error)) => {
                    dispatcher.store_failed("try_claim", &error);
                    self.tell(DispatchOutcome::Unavailable);
                }
                // The request has ended: at its deadline it decided for the REST API, or its connection was closed.
                Some(Ok(TurnStatus::Resolved(ReplyDecision::ViaRest) | TurnStatus::Waiting))
                | None => {}
            }
        }
        // Too many messages are ahead, the request has ended, or the store failed: the backlog handles the message when
        // its turn comes.
        let decided = dispatcher
            .store
            .decide(id, ReplyPath::Rest, dispatcher.clock.now())
            .await;
        match decided {
            Ok(_) => self.tell(DispatchOutcome::Late),
            Err(error) => {
                dispatcher.store_failed("decide", &error);
                self.tell(DispatchOutcome::Unavailable);
            }
        }
        // Also after an error: the decision may have been stored. `deferred` is a hint: it makes the end of a message
        // in this conversation wake the backlog.
        dispatcher.state.deferred.add(conversation, id);
        dispatcher.state.backlog.notify_one();
        None
    }

    /// Calls the application's hook for a consent keyword.
    async fn tell_consent(&self, message: InboundMessage, arrival: &NewInbound) {
        let (Some(hook), Some(consent)) = (&self.dispatcher.on_consent, &arrival.consent) else {
            return;
        };
        let kind = ConsentKind::of(consent);
        let told = AssertUnwindSafe(hook(ConsentChange { message, kind }));
        if told.catch_unwind().await.is_err() {
            tracing::error!(hook = "consent", "a hook panicked");
        }
    }

    /// Runs the handler, unless the guard blocks the message or the conversation is handed off, and saves the outcome.
    async fn attempt(
        mut self,
        claim: Claim,
        mut message: Box<InboundMessage>,
        slot: AuthTokenKind,
        road: WebhookKind,
        place: Option<Slot>,
    ) {
        let dispatcher = self.dispatcher.clone();
        // Until the outcome is saved, which can take as long as an outage, `release_stale_claims` must
        // not release the claim.
        let _held = dispatcher.state.held.hold(claim.id);
        let of_backlog = self.decided.is_none();
        let origin = Origin::of(&message, slot);
        let mut merged = Vec::new();
        let outcome = if dispatcher.stops(claim, &message) {
            Ok((Reply::none(), Completion::default()))
        } else if let Some(passed_on) = dispatcher.pass_on(claim).await {
            passed_on
        } else {
            if !dispatcher.limits.debounce.is_zero() {
                let arrived = self.arrived.monotonic;
                let deadline = dispatcher.limits.deadline_on(self.fallback);
                merged = Box::pin(dispatcher.gather(claim, &mut message, arrived, deadline)).await;
            }
            self.handle(claim, message, slot, road).await
        };
        // The permit limits handlers. Saving the reply may wait for the store, and must not block other handlers.
        drop(place);
        match outcome {
            Ok((reply, mut ending)) => {
                // A message to another user is not a turn of this conversation, so it does not
                // count for loop detection.
                let mut heard = reply.messages().iter();
                if heard.any(|said| !said.is_empty() && origin.hears(said)) {
                    let now = dispatcher.clock.now();
                    dispatcher.guard.said(claim.conversation, now);
                }
                ending.merged.clone_from(&merged);
                self.say(claim, &origin, reply, ending).await;
            }
            Err(failure) => Box::pin(self.give_up(claim, &origin, failure)).await,
        }
        // Merged messages are completed together with this one, so requests that wait for them have to check again.
        for id in merged {
            dispatcher.state.deferred.remove(claim.conversation, id);
            dispatcher.state.waiting.wake(Wakeup::Decision(id));
        }
        dispatcher.state.waiting.wake(Wakeup::Decision(claim.id));
        dispatcher
            .state
            .waiting
            .wake(Wakeup::Turn(claim.conversation));
        // The next message of the conversation may be one that no request waits for.
        if of_backlog || dispatcher.state.deferred.contains(claim.conversation) {
            dispatcher.state.backlog.notify_one();
        }
    }

    /// Runs the handler, with its timeout.
    async fn handle(
        &self,
        claim: Claim,
        message: Box<InboundMessage>,
        slot: AuthTokenKind,
        road: WebhookKind,
    ) -> Result<(Reply, Completion), HandlerFailure> {
        let dispatcher = &self.dispatcher;
        let sid = message.message_sid;
        let inbound = Inbound {
            account: message.account_sid,
            slot,
            sid,
        };
        let shows_typing = *message.from.channel() == Channel::WhatsApp;
        let conversation = ConversationStore {
            store: dispatcher.store.clone(),
            id: claim.conversation,
            message: claim.id,
            at: message.received_at,
            us: message.to.clone(),
            typing: shows_typing.then(|| (dispatcher.typing.clone(), inbound)),
        };
        let mut cx = Context::new(claim.attempt, self.arrived.deadline)
            .in_conversation(Arc::new(conversation), message.received_at);
        let memory = cx.memory();
        // Auto-save deletes files at Twilio only after this guard is dropped, because the handler may still fetch them.
        let _keeping = dispatcher.files.auto_save(&message, slot);
        if !message.media.is_empty() {
            cx = cx.with_attachments(dispatcher.files.attachments(&message, slot));
        }
        if let WebhookKind::Fallback(cause) = road {
            cx = cx.with_fallback(cause);
        }
        crate::crash_point!("P4");
        let started = Instant::now();
        let clock = &dispatcher.clock;
        // Monotonic: a step of the wall clock must not change the handler's timeout.
        let give_up = clock.monotonic().saturating_add(dispatcher.limits.handler);
        // The call is inside of the async block, so a panic before `handle` returns its future is caught as well.
        let handler = async { dispatcher.handler.handle(cx, *message).await };
        let guarded = AssertUnwindSafe(within(handler, || clock.sleep_until_monotonic(give_up)));
        let outcome: Result<Option<Result<Reply, HandlerError>>, _> = guarded.catch_unwind().await;
        dispatcher
            .metrics
            .handler_duration
            .record(started.elapsed());
        match outcome {
            Ok(Some(Ok(reply))) => {
                let ending = Completion {
                    dialogue: change(&memory),
                    handoff: dispatcher.begins(&reply),
                    ..Completion::default()
                };
                Ok((reply, ending))
            }
            Ok(Some(Err(error))) => {
                tracing::error!(message_sid = %sid, %error, "the handler failed");
                Err(HandlerFailure::Error)
            }
            Ok(None) => {
                tracing::error!(message_sid = %sid, "the handler was stopped: it ran longer than handler.timeout_ms");
                Err(HandlerFailure::Error)
            }
            Err(_) => {
                tracing::error!(message_sid = %sid, "the handler panicked");
                Err(HandlerFailure::Panic)
            }
        }
    }
}
