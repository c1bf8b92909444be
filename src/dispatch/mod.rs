//! Processing of one inbound message, from accepting it to its reply.
//!
//! A task of its own accepts the message (durably, once), waits for its turn in its conversation, runs the handler
//! unless the guard blocks the message, and saves the reply before sending it. A closed connection does not cancel the
//! task. The request only waits for the task. At the deadline the request decides that the reply goes via the REST API.
//! If both happen at the same time, the store decides which was first.

mod arrival;
mod backlog;
mod conversing;
mod course;
mod dead;
mod guard;
mod handing_over;
mod held;
mod merging;
mod origin;
mod outage;
mod repetition;
mod store_check;
mod waiting;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, poll_fn};
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;

pub(crate) use self::conversing::{Inbound, TypingHook};
use self::course::Course;
pub(crate) use self::guard::{Guard, GuardRules};
use self::held::HeldMessages;
use self::origin::Origin;
use self::outage::Outage;
use self::waiting::{Deferred, Waiting};
use crate::clock::{Clock, after};
use crate::consent::ConsentRules;
use crate::handler::{Files, Handler};
use crate::message::{FallbackCause, InboundMessage};
use crate::reply::{Reply, WireMessage};
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::{CrashPolicy, ReplyDecision, ReplyPath, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreFailure, StoreReport};
use crate::twiml::Document;

/// Limit of messages ahead: with fewer, a message waits for its turn in its request. Otherwise its reply goes via the
/// REST API.
const WAITING_IN_LINE: u32 = 20;

/// Function that the application registers for consent changes.
pub(crate) type ConsentHook = Arc<dyn Fn(ConsentChange) -> BoxFuture<'static, ()> + Send + Sync>;

/// Consent change, or request for help, by a user's message.
///
/// ```
/// use replyhook::{App, ConsentChange, ConsentKind};
///
/// let builder = App::builder().on_consent(|change: ConsentChange| async move {
///     if change.kind == ConsentKind::OptOut {
///         println!("{} opted out", change.message.message_sid);
///     }
/// });
/// # drop(builder);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentChange {
    /// The message with the keyword.
    pub message: InboundMessage,
    /// The kind of the keyword.
    pub kind: ConsentKind,
}

/// Kind of a consent keyword. See [`ConsentChange`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsentKind {
    /// The user opted out.
    OptOut,
    /// The user opted in again.
    OptIn,
    /// The user asked for help, and Twilio has replied (`OptOutType=HELP`).
    Help,
}

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

impl DispatchLimits {
    /// Time from receiving a message to the response, for a primary or a fallback call.
    fn deadline_on(&self, fallback: bool) -> Duration {
        if fallback {
            self.fallback_deadline
        } else {
            self.deadline
        }
    }
}

/// Mutable state shared by all message tasks.
#[derive(Default)]
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

/// Webhook that a message was received by.
#[derive(Debug, Clone)]
pub(crate) enum WebhookKind {
    Primary,
    Fallback(FallbackCause),
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
        slot: AuthTokenKind,
        road: WebhookKind,
    ) -> DispatchOutcome {
        let Some(place) = Slot::take(self) else {
            return DispatchOutcome::Overloaded;
        };
        let (sid, fallback) = (
            message.message_sid,
            matches!(road, WebhookKind::Fallback(_)),
        );
        let time = self.limits.deadline_on(fallback);
        // Monotonic: a step of the wall clock must not move the deadline.
        let arrived = self.clock.monotonic();
        let deadline = arrived.saturating_add(time);
        let arrival = Arrived {
            monotonic: arrived,
            deadline: after(message.received_at, time),
        };
        // Real time: a test or the emulator that moves the store's clock forward does not make the store slow.
        let accepted_by = tokio::time::Instant::now() + self.store.operation_timeout();
        let progress = Arc::new(TaskProgress::default());
        let (decided, mut verdict) = oneshot::channel();
        let course = Course::new(self.clone(), progress.clone(), decided, arrival);
        let course = course.run(Box::new(message), slot, road, place);
        // Boxed, since spawning moves the future several times.
        self.tasks.spawn(Box::pin(course));
        let first = tokio::time::timeout_at(accepted_by, self.until(&mut verdict, deadline));
        if let Ok(Some(dispatched)) = first.await {
            return dispatched;
        }
        // The deadline can be shorter than the store's timeout. Wait until the message is accepted, since an
        // acknowledgement must not precede that. Its deadline is then over.
        if progress.accepted_id().is_none() {
            let told = async {
                tokio::select! {
                    told = &mut verdict => Some(told),
                    () = progress.is_accepted.notified() => None,
                }
            };
            if let Ok(Some(told)) = tokio::time::timeout_at(accepted_by, told).await {
                return told.unwrap_or(DispatchOutcome::Failed(HandlerFailure::Panic));
            }
        }
        // The task may be accepting the message at this moment. Either `accepted` or this exchange wins: without an id
        // the request responds 503, and the task sends its reply via the REST API.
        let Some(id) = progress.accepted_or_abandoned() else {
            self.store_failed("accept", &"timed out");
            self.store_report.health.rejected(sid);
            return DispatchOutcome::Unavailable;
        };
        if let Some(dispatched) = self.until(&mut verdict, deadline).await {
            return dispatched;
        }
        // A fallback call gets the fallback text if the handler failed before, since it may fail again. Relaxed, since
        // `accepted` stores this flag before it exchanges the id, and the id has been read with Acquire.
        let choice = if fallback && progress.failed_before.load(Ordering::Relaxed) {
            ReplyPath::Twiml(self.fallback_twiml())
        } else {
            ReplyPath::Rest
        };
        let decision = self
            .patient("decide", self.store.decide(id, choice, self.clock.now()))
            .await;
        match decision {
            Err(()) => DispatchOutcome::Unavailable,
            Ok(ReplyDecision::Inline(answered)) => {
                DispatchOutcome::Reply(Document::from_saved(answered.twiml))
            }
            Ok(ReplyDecision::ViaRest) => {
                crate::crash_point!("P9");
                DispatchOutcome::Late
            }
            // The handler failed between the deadline and `decide`. The task is about to send that outcome.
            Ok(ReplyDecision::ClaimLost) => verdict
                .await
                .unwrap_or(DispatchOutcome::Failed(HandlerFailure::Error)),
        }
    }

    /// Waits for the task's outcome until a time of [`Clock::monotonic`].
    async fn until(
        &self,
        verdict: &mut oneshot::Receiver<DispatchOutcome>,
        at: Duration,
    ) -> Option<DispatchOutcome> {
        let verdict = within(verdict, || self.clock.sleep_until_monotonic(at)).await?;
        // The sender is dropped without an outcome only if the task has panicked outside of the handler,
        // which is a bug.
        Some(verdict.unwrap_or(DispatchOutcome::Failed(HandlerFailure::Panic)))
    }

    /// Runs a store operation with the store's timeout, and reports a failure.
    async fn patient<T>(
        &self,
        step: &'static str,
        outcome: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ()> {
        match tokio::time::timeout(self.store.operation_timeout(), outcome).await {
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
        self.state.outage.begins();
        self.store_report.failed(step, failure);
    }

    /// Splits a reply into the messages that either path sends. A reply of too many messages is cut, so that a handler
    /// that does not limit its text cannot flood its user.
    fn wire_messages<'a>(&self, reply: &'a Reply, origin: &Origin) -> Vec<WireMessage<'a>> {
        let limit = self.limits.max_messages;
        let wire = reply.wire_messages(origin.user.channel(), limit);
        if wire.is_cut {
            self.metrics.replies_truncated.increment(1);
            tracing::warn!(
                message_sid = %origin.sid,
                limit,
                "the reply has more messages than reply.max_messages and was cut"
            );
        }
        wire.messages
    }

    /// Returns the fallback text as saved TwiML, or an empty text if there is none.
    fn fallback_twiml(&self) -> String {
        self.fallback_text.to_stored().unwrap_or_default()
    }

    /// Responds to a fallback call that the store could not accept, and buffers the reply until the store is back.
    pub(crate) fn reply_during_outage(
        &self,
        message: &InboundMessage,
        slot: AuthTokenKind,
    ) -> Document {
        let (outage, said) = (&self.state.outage, self.fallback_text.to_stored());
        if !outage.remember(&*self.store, self.arrival(message, slot), said) {
            tracing::error!(message_sid = %message.message_sid, "the buffer for fallback replies is full, so this one will not be in the journal; run `replyhook reconcile` after the outage");
        }
        self.metrics.set_outage_replies(outage.number());
        self.state.backlog.notify_one();
        self.fallback_text.clone()
    }
}

/// Times of a message that its task needs.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    /// Time of receipt by [`Clock::monotonic`].
    monotonic: Duration,
    /// Deadline by the wall clock, for the handler's context.
    deadline: Timestamp,
}

/// Progress of a message's task, shared with its request.
#[derive(Default)]
struct TaskProgress {
    /// 0 until the message is accepted, then its id; [`ABANDONED`] if the request stopped waiting first.
    // Ids are positive in both databases, so neither value can be one.
    id: AtomicI64,
    failed_before: AtomicBool,
    is_accepted: Notify,
}

const ABANDONED: i64 = -1;

impl TaskProgress {
    fn accepted_id(&self) -> Option<i64> {
        Some(self.id.load(Ordering::Acquire)).filter(|id| *id > 0)
    }

    /// Returns the id, or marks the message as abandoned by its request if there is none yet.
    fn accepted_or_abandoned(&self) -> Option<i64> {
        // Acquire on failure: `failed_before` was stored before the id that this reads.
        self.id
            .compare_exchange(0, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
            .err()
    }

    /// Publishes the id of an accepted message. Returns false if the request has abandoned it.
    fn accepted(&self, id: i64, failed_before: bool) -> bool {
        // Relaxed: the exchange below releases it together with the id.
        self.failed_before.store(failed_before, Ordering::Relaxed);
        let before = self
            .id
            .compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire);
        // `notify_one` stores a permit, so a request that checks the id just before this and waits just
        // after it wakes up.
        self.is_accepted.notify_one();
        // Another error is an id: a redelivery that has waited is published a second time, when it is claimed.
        before != Err(ABANDONED)
    }
}

/// Runs `future` until `timer` completes. The timer is created only if `future` is not ready at the first poll.
// So a handler that replies immediately costs no timer.
async fn within<F: Future>(
    future: F,
    timer: impl FnOnce() -> BoxFuture<'static, ()>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = Some(timer);
    let mut sleep = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if let Some(timer) = timer.take() {
            sleep = Some(timer());
        }
        match &mut sleep {
            Some(sleep) => sleep.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Permit for one running handler, released on drop.
struct Slot {
    running: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Slot {
    fn take(dispatcher: &Dispatcher) -> Option<Self> {
        let running = &dispatcher.state.running;
        // Add first, then compare: two requests cannot both take the last permit. No other data depends on the counter.
        if running.fetch_add(1, Ordering::AcqRel) >= dispatcher.limits.running {
            running.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        dispatcher.metrics.handlers_running.increment(1.0);
        Some(Self {
            running: running.clone(),
            metrics: dispatcher.metrics.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.metrics.handlers_running.decrement(1.0);
    }
}
