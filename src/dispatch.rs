//! One message from accept to answer.
//!
//! The handler runs in a task of its own, which a closed connection cannot cut in half. Whoever waits for it waits until
//! the deadline; which of the two was first is decided once, by compare-and-set, so that both sides agree whether the
//! reply was given or came late.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, poll_fn};
use jiff::{SignedDuration, Timestamp};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::handler::{Context, Handler};
use crate::message::{FallbackCause, InboundMessage};
use crate::sid::MessageSid;
use crate::signature::PublicUrl;
use crate::telemetry::metrics::Metrics;
use crate::twiml::{Document, RenderError};

/// What a message is handled with.
pub(crate) struct Dispatcher {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: DispatchLimits,
    pub(crate) tasks: TaskTracker,
    pub(crate) running: Arc<AtomicUsize>,
}

/// How long and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchLimits {
    /// From accepting a message to answering Twilio.
    pub(crate) deadline: Duration,
    /// The same for a fallback call.
    pub(crate) fallback_deadline: Duration,
    /// From starting a handler to giving it up.
    pub(crate) handler: Duration,
    /// Handlers at once, late ones included.
    pub(crate) running: usize,
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
    /// The handler goes on; Twilio gets nothing to say for now.
    Late,
    /// Logged already.
    Failed(Failure),
    /// No handler was started.
    Overloaded,
}

/// Why a message has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Error,
    Panic,
    Overflow,
}

/// Who came first.
const RUNNING: u8 = 0;
const ANSWERED: u8 = 1;
const LATE: u8 = 2;

impl Dispatcher {
    /// Handles a message, or gives up waiting for it at the deadline.
    pub(crate) async fn dispatch(&self, message: InboundMessage, road: Road) -> Dispatched {
        let Some(slot) = Slot::take(&self.running, self.limits.running, &self.metrics) else {
            return Dispatched::Overloaded;
        };
        let sid = message.message_sid;
        let wait = match road {
            Road::Primary => self.limits.deadline,
            Road::Fallback(_) => self.limits.fallback_deadline,
        };
        let deadline = after(message.received_at, wait);
        let race = Arc::new(AtomicU8::new(RUNNING));
        let mut task = self
            .tasks
            .spawn(self.handle(message, road, deadline, race.clone(), slot));
        let mut late = None;
        let joined = poll_fn(|cx| {
            if let Poll::Ready(joined) = std::pin::Pin::new(&mut task).poll(cx) {
                return Poll::Ready(Some(joined));
            }
            let late = late.get_or_insert_with(|| self.clock.sleep_until(deadline));
            late.as_mut().poll(cx).map(|()| None)
        })
        .await;
        let joined = match joined {
            Some(joined) => joined,
            None if race
                .compare_exchange(RUNNING, LATE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok() =>
            {
                tracing::debug!(message_sid = %sid, "the handler missed the deadline and goes on");
                return Dispatched::Late;
            }
            // It was answered in the same moment: the answer counts.
            None => task.await,
        };
        if let Ok(dispatched) = joined {
            dispatched
        } else {
            tracing::error!(message_sid = %sid, "the handler panicked; Twilio gets a 500 and calls the fallback URL");
            Dispatched::Failed(Failure::Panic)
        }
    }

    /// The task: runs the handler to its end, renders, and tells whether that was in time.
    fn handle(
        &self,
        message: InboundMessage,
        road: Road,
        deadline: Timestamp,
        race: Arc<AtomicU8>,
        slot: Slot,
    ) -> impl Future<Output = Dispatched> + Send + 'static {
        let (handler, clock, metrics) = (
            self.handler.clone(),
            self.clock.clone(),
            self.metrics.clone(),
        );
        let (public_url, limit) = (self.public_url.clone(), self.limits.handler);
        async move {
            let late = LatePanic {
                race: race.clone(),
                sid: message.message_sid,
                metrics: metrics.clone(),
                armed: true,
            };
            let (sid, channel) = (message.message_sid, message.channel().clone());
            let cx = match road {
                Road::Primary => Context::new(1, deadline),
                Road::Fallback(cause) => Context::new(1, deadline).with_fallback(cause),
            };
            let started = Instant::now();
            let give_up = after(clock.now(), limit);
            let outcome = within(handler.handle(cx, message), || clock.sleep_until(give_up)).await;
            metrics.handler_seconds.record(started.elapsed());
            drop(slot);
            let dispatched = match outcome {
                None => {
                    tracing::error!(message_sid = %sid, "the handler was given up: it ran longer than handler.max_ms");
                    Dispatched::Failed(Failure::Error)
                }
                Some(Err(error)) => {
                    tracing::error!(message_sid = %sid, %error, "the handler failed");
                    Dispatched::Failed(Failure::Error)
                }
                Some(Ok(reply)) => match Document::render(&reply, &channel, Some(&public_url)) {
                    Ok(document) => {
                        metrics
                            .characters_replaced
                            .increment(document.replaced() as u64);
                        Dispatched::Answered(document)
                    }
                    Err(error) => render_failed(sid, error, &metrics),
                },
            };
            late.settle(&dispatched);
            dispatched
        }
    }
}

/// The moment `wait` later.
fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| at.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

fn render_failed(sid: MessageSid, error: RenderError, metrics: &Metrics) -> Dispatched {
    tracing::error!(message_sid = %sid, %error, "the reply cannot be given");
    if error.is_overflow() {
        metrics.overflow_dropped.increment(1);
        return Dispatched::Failed(Failure::Overflow);
    }
    Dispatched::Failed(Failure::Error)
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

/// Says what happens to a reply that nobody waits for any more, and to a panic that nobody joins.
struct LatePanic {
    race: Arc<AtomicU8>,
    sid: MessageSid,
    metrics: Arc<Metrics>,
    armed: bool,
}

impl LatePanic {
    fn settle(mut self, dispatched: &Dispatched) {
        self.armed = false;
        if self
            .race
            .compare_exchange(RUNNING, ANSWERED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            return;
        }
        if let Dispatched::Answered(document) = dispatched
            && *document != Document::empty()
        {
            self.metrics.late_dropped.increment(1);
            tracing::warn!(message_sid = %self.sid, "the reply came after the deadline and was dropped");
        }
    }
}

impl Drop for LatePanic {
    fn drop(&mut self) {
        if self.armed && self.race.load(Ordering::Acquire) == LATE {
            tracing::error!(message_sid = %self.sid, "the handler panicked, or was cut off by the end of the drain, after the deadline");
        }
    }
}

/// One running handler.
struct Slot {
    running: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Slot {
    fn take(running: &Arc<AtomicUsize>, most: usize, metrics: &Arc<Metrics>) -> Option<Self> {
        if running.fetch_add(1, Ordering::AcqRel) >= most {
            running.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        metrics.handlers_running.increment(1.0);
        Some(Self {
            running: running.clone(),
            metrics: metrics.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.metrics.handlers_running.decrement(1.0);
    }
}
