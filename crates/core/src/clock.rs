//! Clocks: the only code that reads the wall clock.
//!
//! Code that needs the time takes a [`Clock`]. The server uses [`SystemClock`]; tests use [`ManualClock`] and advance
//! it. Deadlines use the monotonic [`Clock::sleep`] instead of [`Clock::sleep_until`], because a wall clock can be set
//! at any time.

use std::fmt;
#[cfg(feature = "axum")]
use std::sync::LazyLock;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
#[cfg(feature = "axum")]
use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt, poll_fn};
pub use jiff::{SignedDuration, Timestamp};

/// A source of the time, on which tasks can sleep.
///
/// ```
/// use std::time::Duration;
/// use replyhook::Clock;
///
/// /// Waits before the next poll, on the real clock or on the one of a test.
/// async fn pause(clock: &dyn Clock) {
///     clock.sleep(Duration::from_millis(200)).await;
/// }
/// # let _ = pause;
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the current wall-clock time.
    fn now(&self) -> Timestamp;

    /// Completes when the wall clock has reached `at`; immediately if it already has.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// Returns the time since a fixed moment. Setting the wall clock does not change it, so deadlines use it.
    ///
    /// The default is the time of [`now`](Self::now) since 1970. An implementation that overrides this method must
    /// override [`sleep_until_monotonic`](Self::sleep_until_monotonic) too.
    fn monotonic(&self) -> Duration {
        let since = self.now().duration_since(Timestamp::UNIX_EPOCH);
        Duration::try_from(since).unwrap_or_default()
    }

    /// Completes when [`monotonic`](Self::monotonic) has reached `at`; immediately if it already has.
    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(after(Timestamp::UNIX_EPOCH, at))
    }

    /// Completes after `time`, even if the wall clock is set in the meantime.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until_monotonic(self.monotonic().saturating_add(time))
    }
}

/// Returns the time `wait` after `at`, or [`Timestamp::MAX`] on overflow.
#[doc(hidden)]
pub fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| at.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A clock that can be advanced, so that a test of a whole day takes no time.
///
/// See [`ManualClock`] for an example.
pub trait Advance: Clock {
    /// Advances the clock, and wakes the tasks whose time has come.
    fn advance(&self, by: SignedDuration);
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        (**self).sleep_until(at)
    }

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }

    // Forwarded as well as `monotonic`: the default method would sleep on the wall clock of the inner clock.
    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        (**self).sleep_until_monotonic(at)
    }
}

/// The clock of the machine. It sleeps on tokio's monotonic timer, so a jump of the wall clock does not change a sleep
/// that has begun.
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
        reason = "this module is the only one that may read the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        tokio::time::sleep(until(at, self.now())).boxed()
    }

    fn monotonic(&self) -> Duration {
        // An `Instant` has no fixed zero: durations are counted from the first call in this process.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(at.saturating_sub(self.monotonic())).boxed()
    }
}

/// Returns the time from `now` until `at`; zero if `at` is in the past.
#[cfg(feature = "axum")]
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// The clock of the machine plus the time it was advanced by. The emulator uses it, for example to let 25 hours pass.
///
/// Advance it by positive times only: a negative time can set its monotonic time back as well.
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
        self.sleep_while(move |shift| until(at, shifted(shift)))
    }

    fn monotonic(&self) -> Duration {
        monotonic(*self.shift.borrow())
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        self.sleep_while(move |shift| at.saturating_sub(monotonic(shift)))
    }
}

#[cfg(feature = "axum")]
impl ShiftedClock {
    /// Sleeps for the time that `left` returns for the current shift, and recomputes it whenever the shift changes.
    fn sleep_while(
        &self,
        left: impl Fn(SignedDuration) -> Duration + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        // The future is `'static`, so it owns a receiver instead of borrowing the clock.
        let mut shift = self.shift.subscribe();
        async move {
            loop {
                // Marks the value as seen: an `advance` from here on completes `changed` below and is not missed.
                let left = left(*shift.borrow_and_update());
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(left) => return,
                    // An error means that the clock was dropped. It cannot be advanced any more, so sleep to the end.
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

#[cfg(feature = "axum")]
fn monotonic(shift: SignedDuration) -> Duration {
    SystemClock.monotonic() + Duration::try_from(shift).unwrap_or_default()
}

/// A clock that stands still until it is advanced. Tasks that sleep on it wake when it reaches their time.
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
    /// Sum of the forward moves.
    monotonic: Duration,
    /// Wakers of all sleeping tasks, whatever time they sleep until.
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// Creates a clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(ManualState {
                now,
                monotonic: Duration::ZERO,
                sleepers: Vec::new(),
            })),
        }
    }

    /// Advances the clock, and wakes the tasks whose time has come. A negative time sets the wall clock back; it does
    /// not prolong a [`Clock::sleep`].
    pub fn advance(&self, by: SignedDuration) {
        let woken = {
            let mut state = lock(&self.state);
            state.now += by;
            // The conversion fails for a negative time, which leaves the monotonic time unchanged.
            state.monotonic += Duration::try_from(by).unwrap_or_default();
            // Wake every task. One whose time has not come checks the clock and registers its waker again.
            std::mem::take(&mut state.sleepers)
        };
        // After the lock is released: a waker may run the task right here, and its poll locks the state.
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
        self.wait_for(move |state| state.now >= at)
    }

    fn monotonic(&self) -> Duration {
        lock(&self.state).monotonic
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        self.wait_for(move |state| state.monotonic >= at)
    }
}

impl ManualClock {
    fn wait_for(
        &self,
        is_over: impl Fn(&ManualState) -> bool + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let state = self.state.clone();
        poll_fn(move |cx| {
            let mut state = lock(&state);
            if is_over(&state) {
                return Poll::Ready(());
            }
            // Under the same lock as the check: `advance` cannot run in between and miss this waker.
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

/// Locks the state, even after a panic of another holder.
// Safe to ignore poisoning: both fields are valid after every statement under the lock.
fn lock(state: &Mutex<ManualState>) -> std::sync::MutexGuard<'_, ManualState> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_on_manual_clock_ends_when_advanced() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let mut sleep = clock.sleep_until(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(10));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(9));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(1));
        assert!(sleep.now_or_never().is_some());
    }

    #[test]
    fn sleep_on_manual_clock_ignores_setting_it_back() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let mut sleep = clock.sleep(Duration::from_secs(10));
        clock.advance(SignedDuration::from_secs(9));
        clock.advance(SignedDuration::from_hours(-1));
        assert!((&mut sleep).now_or_never().is_none());
        assert_eq!(clock.monotonic(), Duration::from_secs(9));
        clock.advance(SignedDuration::from_secs(1));
        assert!(sleep.now_or_never().is_some());
    }

    #[cfg(feature = "axum")]
    #[tokio::test]
    async fn sleep_on_shifted_clock_ends_when_shifted() {
        let clock = ShiftedClock::default();
        let sleep = clock.sleep(Duration::from_hours(1));
        clock.advance(SignedDuration::from_hours(1));
        sleep.await;
        assert!(clock.monotonic() >= Duration::from_hours(1));
    }
}
