//! Processing of one inbound message, from accepting it to its reply.
//!
//! A task of its own accepts the message (durably, once), waits for its turn in its conversation, runs the handler
//! unless the guard blocks the message, and saves the reply before sending it. A closed connection does not cancel the
//! task. The request only waits for the task. At the deadline the request decides that the reply goes via the REST API.
//! If both happen at the same time, the store decides which was first.

mod backlog;
mod consent_change;
mod conversation_store;
mod dead_messages;
mod deadlines;
mod debounce;
mod guard;
mod handed_off;
mod handler_call;
mod held_messages;
mod message_task;
mod new_inbound;
mod origin;
mod outage;
mod pending;
mod permit;
mod repetition;
mod reply_plan;
mod save_reply;
mod store_check;
mod waiting;
mod webhook_kind;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) use self::consent_change::ConsentHook;
pub use self::consent_change::{ConsentChange, ConsentKind};
pub(crate) use self::conversation_store::{Inbound, TypingHook};
use self::deadlines::Deadlines;
pub(crate) use self::guard::{Guard, GuardRules};
use self::held_messages::HeldMessages;
use self::message_task::MessageTask;
use self::outage::Outage;
use self::pending::{Acceptance, AcceptedMessage, PendingResponse};
use self::permit::HandlerPermit;
use self::waiting::{Deferred, Waiting};
pub(crate) use self::webhook_kind::WebhookKind;
use crate::clock::Clock;
use crate::consent::ConsentRules;
use crate::handler::{Files, Handler};
use crate::message::InboundMessage;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::{CrashPolicy, ReplyDecision, ReplyPath, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreFailure, StoreReport};
use crate::twiml::Document;

/// Everything that the processing of a message needs.
pub(crate) struct Dispatcher {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store_report: StoreReport,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: DispatchLimits,
    pub(crate) consent: ConsentRules,
    /// Loop detection and rate limit.
    pub(crate) guard: Guard,
    /// Fallback text as TwiML; empty if none is configured.
    pub(crate) fallback_text: Document,
    pub(crate) on_consent: Option<ConsentHook>,
    /// Media of messages and replies.
    pub(crate) files: Arc<dyn Files>,
    pub(crate) typing: TypingHook,
    pub(crate) tasks: TaskTracker,
    /// Wakes the outbox worker.
    pub(crate) outbox: Arc<Notify>,
    /// Wakes the worker that cancels scheduled messages after an opt-out.
    pub(crate) opted_out: Arc<Notify>,
    pub(crate) state: DispatchState,
}

/// Timeouts and limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchLimits {
    /// Time from receiving a message to the response.
    pub(crate) deadline: Duration,
    /// Time from receiving a fallback call to the response.
    pub(crate) fallback_deadline: Duration,
    /// Pause that separates messages of a burst from the next one. Zero: no messages are merged.
    pub(crate) debounce: Duration,
    /// True if the parts of a long text are numbered.
    pub(crate) numbered: bool,
    /// Maximum number of messages of a reply, after splitting for the channel.
    pub(crate) max_messages: usize,
    /// Time from the last message of a handoff to its end.
    pub(crate) handoff_ttl: Duration,
    /// Maximum run time of a handler, late ones included.
    pub(crate) handler: Duration,
    /// Maximum number of concurrent handlers, late ones included.
    pub(crate) running: usize,
    /// Maximum number of attempts, and whether an attempt may follow a crash.
    pub(crate) crashes: CrashPolicy,
}

/// Mutable state shared by all message tasks.
pub(crate) struct DispatchState {
    /// Number of running handlers.
    running: Arc<AtomicUsize>,
    waiting: Waiting,
    deferred: Deferred,
    held: HeldMessages,
    outage: Outage,
    /// Wakes the backlog.
    backlog: Notify,
    /// True if a store operation has failed since the backlog last released stale claims.
    store_failed: AtomicBool,
}

impl DispatchState {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            running: Arc::default(),
            waiting: Waiting::default(),
            deferred: Deferred::default(),
            held: HeldMessages::default(),
            outage: Outage::new(clock.monotonic()),
            backlog: Notify::new(),
            store_failed: AtomicBool::new(false),
        }
    }
}

/// Outcome of a message for its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DispatchOutcome {
    Reply(Document),
    /// A redelivery, with the saved response.
    Duplicate(Document),
    /// The user has opted out, and gets nothing.
    OptedOut,
    /// A consent keyword, with its confirmation.
    ConsentConfirmation(Document),
    /// The reply is not ready and goes via the REST API.
    Late,
    /// The reply is ready and goes via the REST API: TwiML cannot carry it, or an older reply has to be sent first.
    ByRest,
    /// The handler failed. The failure is logged.
    Failed(HandlerFailure),
    /// No handler was started, since too many are running.
    Overloaded,
    /// The store is unavailable.
    Unavailable,
}

/// Kind of a handler's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerFailure {
    Error,
    Panic,
}

impl Dispatcher {
    /// Spawns the task of a message and waits for its outcome, at most until the deadline.
    pub(crate) async fn dispatch(
        self: &Arc<Self>,
        message: InboundMessage,
        auth_token: AuthTokenKind,
        kind: WebhookKind,
    ) -> DispatchOutcome {
        let Some(permit) = self.try_acquire_permit() else {
            return DispatchOutcome::Overloaded;
        };
        let (sid, is_fallback) = (message.message_sid, kind.is_fallback());
        let deadlines = Deadlines::of_request(
            &self.limits,
            &kind,
            &*self.clock,
            self.store.operation_timeout(),
            message.received_at,
        );
        let (pending, responder) = PendingResponse::pair();
        let task = MessageTask::new(self.clone(), responder, deadlines, kind);
        // Boxed, since spawning moves the future several times.
        self.tasks
            .spawn(Box::pin(task.run(Box::new(message), auth_token, permit)));
        let deadline = || self.clock.sleep_until_monotonic(deadlines.reply_by);
        let first = tokio::time::timeout_at(deadlines.accept_by, pending.resolved(deadline));
        if let Ok(Some(outcome)) = first.await {
            return outcome;
        }
        // The deadline can be shorter than the store's timeout. Wait until the message is stored also after it: an
        // acknowledgement must not precede the commit of the message.
        let accepted = match pending.accepted(deadlines.accept_by).await {
            Acceptance::Resolved(outcome) => return outcome,
            Acceptance::Accepted(message) => message,
            Acceptance::NotYet => {
                self.store_failed("accept", &"timed out");
                self.store_report.health.record_rejected(sid);
                return DispatchOutcome::Unavailable;
            }
        };
        match pending.resolved(deadline).await {
            Some(outcome) => outcome,
            None => {
                self.decide_at_deadline(accepted, is_fallback, &pending)
                    .await
            }
        }
    }

    /// Decides the reply path of a message that has no outcome at its deadline.
    async fn decide_at_deadline(
        &self,
        message: AcceptedMessage,
        is_fallback: bool,
        pending: &PendingResponse,
    ) -> DispatchOutcome {
        // A fallback call gets the fallback text if the handler failed before, since it may fail again.
        let path = if is_fallback && message.failed_before {
            ReplyPath::Twiml(self.fallback_twiml())
        } else {
            ReplyPath::Rest
        };
        let decision = self.store.decide(message.id, path, self.clock.now());
        match self.timed("decide", decision).await {
            Err(()) => DispatchOutcome::Unavailable,
            Ok(ReplyDecision::Inline(response)) => {
                DispatchOutcome::Reply(Document::from_stored(response.twiml))
            }
            Ok(ReplyDecision::ViaRest) => {
                crate::crash_point!("P9");
                DispatchOutcome::Late
            }
            // The handler failed between the deadline and `decide`. The task is about to send that outcome.
            Ok(ReplyDecision::ClaimLost) => pending
                .resolved(|| Box::pin(std::future::pending()))
                .await
                .unwrap_or(DispatchOutcome::Failed(HandlerFailure::Error)),
        }
    }

    /// Acquires the permit of a handler, unless too many are running.
    fn try_acquire_permit(&self) -> Option<HandlerPermit> {
        HandlerPermit::try_acquire(&self.state.running, self.limits.running, &self.metrics)
    }

    /// Runs a store operation with the store's timeout, and reports a failure.
    async fn timed<T>(
        &self,
        step: &'static str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ()> {
        match tokio::time::timeout(self.store.operation_timeout(), operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.store_failed(step, &error);
                Err(())
            }
            Err(_) => {
                self.store_failed(step, &"timed out");
                Err(())
            }
        }
    }

    /// Reports a failed store operation, and makes the backlog check for what it left behind.
    fn store_failed(&self, step: &'static str, failure: &dyn StoreFailure) {
        // Relaxed: the flag publishes no other data, and a run of the backlog that misses it is followed by another.
        self.state.store_failed.store(true, Ordering::Relaxed);
        self.state.outage.store_failed(self.clock.monotonic());
        self.store_report.record_failure(step, failure);
    }

    /// Returns the fallback text as saved TwiML, or an empty text if there is none.
    fn fallback_twiml(&self) -> String {
        self.fallback_text.to_stored().unwrap_or_default()
    }

    /// Returns until when nothing may go via the REST API in reply to a message that was received at a time of
    /// [`Clock::monotonic`]; `None` if it may now.
    // Only with peers and a fallback text: otherwise no other server can have sent one that this server does not know.
    fn rest_held_until(&self, received: Duration) -> Option<Duration> {
        if !self.store.has_peers() || self.fallback_text == Document::empty() {
            return None;
        }
        let until = self.state.outage.held_until(received)?;
        (self.clock.monotonic() < until).then_some(until)
    }

    /// Responds to a fallback call that the store could not accept, and buffers the reply until the store is back.
    pub(crate) fn reply_during_outage(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Document {
        let outage = &self.state.outage;
        let inbound = self.new_inbound(message, auth_token);
        if !outage.add_reply(inbound, self.fallback_text.to_stored()) {
            tracing::error!(message_sid = %message.message_sid, "the buffer for fallback replies is full, so this one will not be in the journal; run `replyhook reconcile` after the outage");
        }
        self.metrics.set_outage_replies(outage.reply_count());
        self.state.backlog.notify_one();
        self.fallback_text.clone()
    }
}
