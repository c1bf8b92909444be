//! The only reader of the wall clock.
//!
//! Everything that needs the time is handed a [`Clock`]: the server takes [`SystemClock`], tests take
//! [`ManualClock`] and move it. Deadlines go through [`Clock::sleep`] for the same reason, and not through
//! [`Clock::sleep_until`], since a wall clock may be set at any time.

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

/// Tells the time and wakes at a time.
///
/// ```
/// use std::time::Duration;
/// use replyhook::Clock;
///
/// /// What a handler of yours does between two looks, on whichever clock it has.
/// async fn pause(clock: &dyn Clock) {
///     clock.sleep(Duration::from_millis(200)).await;
/// }
/// # let _ = pause;
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Completes once the clock has reached `at`; at once if it already has.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// The time since a fixed moment, which setting the wall clock does not change: deadlines go by it.
    ///
    /// By default the time since 1970 of [`now`](Self::now). A clock that has another one has
    /// [`sleep_until_monotonic`](Self::sleep_until_monotonic) as well.
    fn monotonic(&self) -> Duration {
        let since = self.now().duration_since(Timestamp::UNIX_EPOCH);
        Duration::try_from(since).unwrap_or_default()
    }

    /// Completes once [`monotonic`](Self::monotonic) has reached `at`; immediately if it already has.
    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(after(Timestamp::UNIX_EPOCH, at))
    }

    /// Completes after this time, also if the wall clock is set while it passes.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until_monotonic(self.monotonic().saturating_add(time))
    }
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

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        (**self).sleep_until_monotonic(at)
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
        tokio::time::sleep(until(at, self.now())).boxed()
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(at.saturating_sub(self.monotonic())).boxed()
    }
}

/// The time from `now` until `at`; none if that is past.
#[cfg(feature = "axum")]
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
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
    /// Sleeps for as long as time is left, which depends on the shift.
    fn sleep_while(
        &self,
        left: impl Fn(SignedDuration) -> Duration + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let mut shift = self.shift.subscribe();
        async move {
            loop {
                let left = left(*shift.borrow_and_update());
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

#[cfg(feature = "axum")]
fn monotonic(shift: SignedDuration) -> Duration {
    SystemClock.monotonic() + Duration::try_from(shift).unwrap_or_default()
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
    /// The time that it was moved forward by.
    monotonic: Duration,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(ManualState {
                now,
                monotonic: Duration::ZERO,
                sleepers: Vec::new(),
            })),
        }
    }

    /// Moves the clock and wakes who slept until then. A negative time sets it back, as a wall clock is: that makes nothing
    /// wait longer that waits for a time to pass ([`Clock::sleep`]).
    pub fn advance(&self, by: SignedDuration) {
        let woken = {
            let mut state = lock(&self.state);
            state.now += by;
            state.monotonic += Duration::try_from(by).unwrap_or_default();
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
