//! The only reader of the wall clock.
//!
//! Everything that needs the time is handed a [`Clock`]: the server takes [`SystemClock`], tests take
//! [`ManualClock`] and move it. Deadlines go through [`Clock::sleep_until`] for the same reason.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, poll_fn};
pub use jiff::{SignedDuration, Timestamp};

/// Tells the time and wakes at a time.
///
/// ```
/// use std::time::Duration;
/// use replyhook::Clock;
///
/// /// What a handler of yours does between two looks, on whichever clock it has.
/// async fn pause(clock: &dyn Clock) {
///     clock.sleep_until(clock.now() + Duration::from_millis(200)).await;
/// }
/// # let _ = pause;
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Completes once the clock has reached `at`; at once if it already has.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// The moment `wait` later, or the last there is.
pub(crate) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| at.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A clock that can be moved on: a day passes in no time.
///
/// Moved in a test: see [`ManualClock`].
pub trait Advance: Clock {
    /// Moves the clock on and wakes who slept until then.
    fn advance(&self, by: SignedDuration);
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        (**self).sleep_until(at)
    }
}

/// The machine's clock, sleeping on tokio's monotonic timer: a wall clock that jumps moves no deadline
/// that is already being waited for.
///
/// ```
/// use std::time::Duration;
/// use replyhook::{Clock, SystemClock};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let end = SystemClock.now() + Duration::from_millis(2);
/// SystemClock.sleep_until(end).await;
/// assert!(SystemClock.now() >= end);
/// # });
/// ```
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[cfg(feature = "axum")]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one room that may read the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let left = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left).boxed()
    }
}

/// The machine's clock plus what it was moved on by: how the emulator lets 25 hours pass.
///
/// ```
/// use replyhook::clock::{Advance, Clock, ShiftedClock, SignedDuration, SystemClock};
///
/// let clock = ShiftedClock::default();
/// clock.advance(SignedDuration::from_hours(25));
/// assert!(clock.now() > SystemClock.now() + SignedDuration::from_hours(24));
/// ```
#[cfg(feature = "axum")]
#[derive(Debug)]
pub struct ShiftedClock {
    shift: tokio::sync::watch::Sender<SignedDuration>,
}

#[cfg(feature = "axum")]
impl Default for ShiftedClock {
    fn default() -> Self {
        Self {
            shift: tokio::sync::watch::Sender::new(SignedDuration::ZERO),
        }
    }
}

#[cfg(feature = "axum")]
impl Advance for ShiftedClock {
    fn advance(&self, by: SignedDuration) {
        self.shift.send_modify(|shift| {
            *shift = shift.saturating_add(by);
        });
    }
}

#[cfg(feature = "axum")]
impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        shifted(*self.shift.borrow())
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut shift = self.shift.subscribe();
        async move {
            loop {
                let now = shifted(*shift.borrow_and_update());
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(left) => return,
                    // A clock that is gone is moved no more.
                    moved = shift.changed() => if moved.is_err() {
                        return tokio::time::sleep(left).await;
                    },
                }
            }
        }
        .boxed()
    }
}

#[cfg(feature = "axum")]
fn shifted(by: SignedDuration) -> Timestamp {
    SystemClock.now().checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A clock that stands still until it is moved. Sleepers wake when it passes their time.
///
/// ```
/// use futures_util::FutureExt;
/// use replyhook::clock::{Clock, ManualClock, SignedDuration, Timestamp};
///
/// let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
/// let tomorrow = clock.sleep_until(clock.now() + SignedDuration::from_hours(24));
/// clock.advance(SignedDuration::from_hours(24));
/// assert!(tomorrow.now_or_never().is_some());
/// ```
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

struct ManualState {
    now: Timestamp,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(ManualState {
                now,
                sleepers: Vec::new(),
            })),
        }
    }

    /// Moves the clock and wakes who slept until then.
    pub fn advance(&self, by: SignedDuration) {
        let woken = {
            let mut state = lock(&self.state);
            state.now += by;
            std::mem::take(&mut state.sleepers)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Advance for ManualClock {
    fn advance(&self, by: SignedDuration) {
        Self::advance(self, by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        lock(&self.state).now
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let state = self.state.clone();
        poll_fn(move |cx| {
            let mut state = lock(&state);
            if state.now >= at {
                return Poll::Ready(());
            }
            state.sleepers.push(cx.waker().clone());
            Poll::Pending
        })
        .boxed()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("now", &self.now())
            .finish()
    }
}

/// A panic in another holder leaves a time and a list of wakers, both still whole.
fn lock(state: &Mutex<ManualState>) -> std::sync::MutexGuard<'_, ManualState> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_of_the_manual_clock_wakes_when_the_clock_passes_its_time() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let mut sleep = clock.sleep_until(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(10));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(9));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(1));
        assert!(sleep.now_or_never().is_some());
    }
}
