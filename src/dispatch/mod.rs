//! One message from accept to answer.
//!
//! Everything a message needs happens in a task of its own, which a closed connection cannot cut in half: it is accepted
//! (durably, once), waits for its turn in its conversation, is handled unless the guard stops it, and its answer is saved
//! before anybody sees it. The request only waits, and at its deadline decides: what is not answered by then goes by
//! REST. Who is first is decided in the store.

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
use self::held::Held;
use self::origin::Origin;
use self::outage::Outage;
use self::waiting::{Deferred, Waiting};
use crate::clock::{Clock, after};
use crate::consent::ConsentRules;
use crate::handler::{Files, Handler};
use crate::message::{FallbackCause, InboundMessage};
use crate::reply::{Reply, WireMessage};
use crate::signature::{PublicUrl, TokenSlot};
use crate::store::{Choice, CrashPolicy, Decision, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreFailure, StoreReport};
use crate::twiml::Document;

/// Messages of one conversation that wait in their requests; further ones are kept, and answered by REST.
const WAITING_IN_LINE: u32 = 20;

pub(crate) type ConsentHook = Arc<dyn Fn(ConsentChange) -> BoxFuture<'static, ()> + Send + Sync>;

/// A user's word about being written to.
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
    /// The message that says so.
    pub message: InboundMessage,
    /// What it says.
    pub kind: ConsentKind,
}

/// What a consent word says.
///
/// Told to a program: see [`ConsentChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsentKind {
    /// No more messages.
    OptOut,
    /// Messages again.
    OptIn,
    /// A question, which Twilio has answered (`OptOutType=HELP`).
    Help,
}

/// What a message is handled with.
pub(crate) struct Dispatcher {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store_report: StoreReport,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: DispatchLimits,
    pub(crate) consent: ConsentRules,
    /// What keeps messages from the handler.
    pub(crate) guard: Guard,
    /// What is said when the handler fails for the last time.
    pub(crate) apology: Document,
    pub(crate) on_consent: Option<ConsentHook>,
    /// What messages bring beside texts.
    pub(crate) files: Arc<dyn Files>,
    pub(crate) typing: TypingHook,
    pub(crate) tasks: TaskTracker,
    /// Wakes the worker that sends what goes by REST.
    pub(crate) outbox: Arc<Notify>,
    /// Wakes the worker that calls back what Twilio holds until its time.
    pub(crate) opted_out: Arc<Notify>,
    pub(crate) state: DispatchState,
}

/// How long, how many, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchLimits {
    /// From accepting a message to answering Twilio.
    pub(crate) deadline: Duration,
    /// The same for a fallback call.
    pub(crate) fallback_deadline: Duration,
    /// A pause between messages after which the next one is another turn; zero: each is its own.
    pub(crate) merge: Duration,
    /// Whether the parts of a long text are numbered.
    pub(crate) numbered: bool,
    /// Maximum number of messages of a reply, as the channel takes them.
    pub(crate) max_messages: usize,
    /// From a hand-over, or its last message, to its end.
    pub(crate) hand_over: Duration,
    /// From starting a handler to giving it up.
    pub(crate) handler: Duration,
    /// Handlers at once, late ones included.
    pub(crate) running: usize,
    /// Attempts at a message, and whether one of them may follow a crash.
    pub(crate) crashes: CrashPolicy,
}

impl DispatchLimits {
    /// From accepting a message to answering Twilio, on either road.
    fn deadline_on(&self, fallback: bool) -> Duration {
        if fallback {
            self.fallback_deadline
        } else {
            self.deadline
        }
    }
}

/// What changes while messages are dispatched.
#[derive(Default)]
pub(crate) struct DispatchState {
    running: Arc<AtomicUsize>,
    waiting: Waiting,
    deferred: Deferred,
    held: Held,
    outage: Outage,
    /// There is something for the backlog.
    backlog: Notify,
    /// The store has failed since the backlog last looked for what was left behind.
    store_failed: AtomicBool,
}

/// How a message came.
#[derive(Debug, Clone)]
pub(crate) enum Road {
    Primary,
    Fallback(FallbackCause),
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dispatched {
    Answered(Document),
    /// It came before; this is the answer it got, or gets.
    Duplicate(Document),
    /// Its author wants nothing from us.
    OptedOut,
    /// It was about that, and this is our answer.
    Consent(Document),
    /// The answer goes by REST when it is ready.
    Late,
    /// The answer is ready and goes by REST, because TwiML does not hold it.
    ByRest,
    /// Logged already.
    Failed(Failure),
    /// No handler was started.
    Overloaded,
    /// The store did not take it.
    Unavailable,
}

/// Why a message has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Error,
    Panic,
}

impl Dispatcher {
    /// Accepts a message and has it handled, or gives up waiting for it at the deadline.
    pub(crate) async fn dispatch(
        self: &Arc<Self>,
        message: InboundMessage,
        slot: TokenSlot,
        road: Road,
    ) -> Dispatched {
        let Some(place) = Slot::take(self) else {
            return Dispatched::Overloaded;
        };
        let (sid, fallback) = (message.message_sid, matches!(road, Road::Fallback(_)));
        let time = self.limits.deadline_on(fallback);
        // Not by the wall clock, which may be set after the message came.
        let arrived = self.clock.monotonic();
        let deadline = arrived.saturating_add(time);
        let arrival = Arrived {
            monotonic: arrived,
            deadline: after(message.received_at, time),
        };
        // Not by the clock: one that is moved on does not make the store slow.
        let accepted_by = tokio::time::Instant::now() + self.store.patience();
        let progress = Arc::new(Progress::default());
        let (decided, mut verdict) = oneshot::channel();
        let course = Course::new(self.clone(), progress.clone(), decided, arrival);
        let course = course.run(Box::new(message), slot, road, place);
        // Boxed: on its way to a worker a task is moved several times.
        self.tasks.spawn(Box::pin(course));
        let first = tokio::time::timeout_at(accepted_by, self.until(&mut verdict, deadline));
        if let Ok(Some(dispatched)) = first.await {
            return dispatched;
        }
        // A deadline that is shorter than the store takes: what is accepted by then has had its time.
        if progress.accepted_id().is_none() {
            let told = async {
                tokio::select! {
                    told = &mut verdict => Some(told),
                    () = progress.is_accepted.notified() => None,
                }
            };
            if let Ok(Some(told)) = tokio::time::timeout_at(accepted_by, told).await {
                return told.unwrap_or(Dispatched::Failed(Failure::Panic));
            }
        }
        let Some(id) = progress.accepted_or_abandoned() else {
            self.store_failed("accept", &"it takes too long");
            self.store_report.health.refused(sid);
            return Dispatched::Unavailable;
        };
        if let Some(dispatched) = self.until(&mut verdict, deadline).await {
            return dispatched;
        }
        // A second failure on the fallback's road has nothing better to wait for than the apology.
        let choice = if fallback && progress.failed_before.load(Ordering::Relaxed) {
            Choice::Twiml(self.apology_text())
        } else {
            Choice::Rest
        };
        let decision = self
            .patient("decide", self.store.decide(id, choice, self.clock.now()))
            .await;
        match decision {
            Err(()) => Dispatched::Unavailable,
            Ok(Decision::Answered(answered)) => {
                Dispatched::Answered(Document::saved(answered.twiml))
            }
            Ok(Decision::Deferred) => {
                crate::crash_point!("P9");
                Dispatched::Late
            }
            // Its handler has failed in this very moment.
            Ok(Decision::Lost) => verdict.await.unwrap_or(Dispatched::Failed(Failure::Error)),
        }
    }

    /// Waits for a verdict, but not past a time of [`Clock::monotonic`].
    async fn until(
        &self,
        verdict: &mut oneshot::Receiver<Dispatched>,
        at: Duration,
    ) -> Option<Dispatched> {
        let verdict = within(verdict, || self.clock.sleep_until_monotonic(at)).await?;
        // The task tells, or has panicked, which is a fault of ours.
        Some(verdict.unwrap_or(Dispatched::Failed(Failure::Panic)))
    }

    /// Waits for the store, but not too long; what it failed at is logged.
    async fn patient<T>(
        &self,
        step: &'static str,
        outcome: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ()> {
        match tokio::time::timeout(self.store.patience(), outcome).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.store_failed(step, &error);
                Err(())
            }
            Err(_) => {
                self.store_failed(step, &"it takes too long");
                Err(())
            }
        }
    }

    fn store_failed(&self, step: &'static str, failure: &dyn StoreFailure) {
        self.state.store_failed.store(true, Ordering::Relaxed);
        self.state.outage.begins();
        self.store_report.failed(step, failure);
    }

    /// The messages of a reply as both paths send them. A reply of too many is cut, so that a handler that fails to limit its
    /// text does not flood its user.
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

    /// The apology as it is saved; empty if there is none.
    fn apology_text(&self) -> String {
        self.apology.to_saved().unwrap_or_default()
    }

    /// Answers from memory a fallback call that the store could not take, and enters it as soon as it can.
    pub(crate) fn apologise(&self, message: &InboundMessage, slot: TokenSlot) -> Document {
        let (outage, said) = (&self.state.outage, self.apology.to_saved());
        if !outage.remember(&*self.store, self.arrival(message, slot), said) {
            tracing::error!(message_sid = %message.message_sid, "an answer from memory could not be remembered: `replyhook reconcile` finds such messages");
        }
        self.metrics.outage_answers(outage.number());
        self.state.backlog.notify_one();
        self.apology.clone()
    }
}

/// When a message arrived, as far as its task asks.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    /// By [`Clock::monotonic`].
    monotonic: Duration,
    /// The time of its deadline that its handler is shown.
    deadline: Timestamp,
}

/// How far a message's task has come, as its request sees it.
#[derive(Default)]
struct Progress {
    /// 0 until it is accepted, then its number; or [`ABANDONED`], if the request gave up first.
    id: AtomicI64,
    failed_before: AtomicBool,
    is_accepted: Notify,
}

const ABANDONED: i64 = -1;

impl Progress {
    fn accepted_id(&self) -> Option<i64> {
        Some(self.id.load(Ordering::Acquire)).filter(|id| *id > 0)
    }

    fn accepted_or_abandoned(&self) -> Option<i64> {
        self.id
            .compare_exchange(0, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
            .err()
    }

    /// Returns whether the request still waits.
    fn accepted(&self, id: i64, failed_before: bool) -> bool {
        self.failed_before.store(failed_before, Ordering::Relaxed);
        let before = self
            .id
            .compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire);
        self.is_accepted.notify_one();
        before != Err(ABANDONED)
    }
}

/// Polls `future` first and makes the timer only once it has to wait.
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

/// One running handler.
struct Slot {
    running: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Slot {
    fn take(dispatcher: &Dispatcher) -> Option<Self> {
        let running = &dispatcher.state.running;
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
