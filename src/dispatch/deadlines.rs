//! Deadlines of the steps of a message: the only place in `dispatch` that computes them.
//!
//! | time | clock | reason |
//! |---|---|---|
//! | `accept_by` | real time | advancing a test's clock does not make the store slow |
//! | `reply_by`, `debounce_until`, the handler's timeout | [`Clock::monotonic`] | setting the wall clock must not change them |
//! | `context_deadline` | wall clock | the handler compares it with timestamps |

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, poll_fn};
use jiff::Timestamp;
use tokio::time::Instant;

use super::limits::DispatchLimits;
use super::webhook_kind::WebhookKind;
use crate::clock::{Clock, after};

/// Deadlines of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// Time by which the message must be stored; its request responds with 503 otherwise.
    pub(super) accept_by: Instant,
    /// Time of receipt, by [`Clock::monotonic`]. A pause of the user counts from here.
    pub(super) received: Duration,
    /// Time of the response, by [`Clock::monotonic`].
    pub(super) reply_by: Duration,
    /// Latest end of a burst, by [`Clock::monotonic`]. The handler gets the other half of the deadline.
    pub(super) debounce_until: Duration,
    /// Deadline by the wall clock, for the handler's context.
    pub(super) context_deadline: Timestamp,
}

impl Deadlines {
    /// Computes the deadlines of a message whose request has just arrived.
    pub(super) fn of_request(
        limits: &DispatchLimits,
        kind: &WebhookKind,
        clock: &dyn Clock,
        store_timeout: Duration,
        received_at: Timestamp,
    ) -> Self {
        let deadline = match kind {
            WebhookKind::Fallback(_) => limits.fallback_deadline,
            WebhookKind::Primary | WebhookKind::Backlog => limits.deadline,
        };
        let received = clock.monotonic();
        Self {
            accept_by: Instant::now() + store_timeout,
            received,
            reply_by: received.saturating_add(deadline),
            debounce_until: received.saturating_add(deadline / 2),
            context_deadline: after(received_at, deadline),
        }
    }

    /// Computes the deadlines of a message of the backlog, which no request waits for.
    pub(super) fn of_backlog(
        limits: &DispatchLimits,
        clock: &dyn Clock,
        received_at: Timestamp,
    ) -> Self {
        let now = clock.now();
        // By the wall clock: the monotonic clock of the process that received the message means nothing here.
        let age = Duration::try_from(now.duration_since(received_at)).unwrap_or_default();
        let received = clock.monotonic().saturating_sub(age);
        Self {
            accept_by: Instant::now(),
            received,
            reply_by: received,
            debounce_until: received.saturating_add(limits.deadline / 2),
            context_deadline: after(now, limits.handler),
        }
    }
}

/// Returns the time by [`Clock::monotonic`] at which a handler that starts now is stopped.
// From the start of the handler and not from the receipt: a message that waited for its turn gets the whole time.
pub(super) fn handler_stopped_at(limits: &DispatchLimits, clock: &dyn Clock) -> Duration {
    clock.monotonic().saturating_add(limits.handler)
}

/// Runs `future` until the timer that `timer` starts completes. A future that is ready at the first poll costs no timer.
pub(super) async fn within<F: Future>(
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
