//! Deadline of tests that poll a condition which gives no notification.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Limit for conditions that must become true. None takes nearly as long.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Wait for a condition. It fails the test instead of hanging if the condition never holds.
pub struct Wait {
    awaited: String,
    deadline: Instant,
}

impl Wait {
    /// Starts a wait until a condition holds, such as `the message is stored`.
    pub fn until(awaited: impl Into<String>) -> Self {
        Self {
            awaited: awaited.into(),
            deadline: Instant::now() + WAIT_TIMEOUT,
        }
    }

    /// Panics if the time is over. Call it in each round of a loop.
    #[track_caller]
    pub fn check(&self) {
        assert!(
            Instant::now() < self.deadline,
            "timed out after {WAIT_TIMEOUT:?} waiting until {}",
            self.awaited
        );
    }

    /// As [`Wait::check`], and shows the state in which the condition does not hold.
    #[track_caller]
    pub fn check_found(&self, found: &dyn Debug) {
        assert!(
            Instant::now() < self.deadline,
            "timed out after {WAIT_TIMEOUT:?} waiting until {}: {found:?}",
            self.awaited
        );
    }

    /// Yields to other tasks, unless the time is over.
    pub async fn pause(&self) {
        self.check();
        tokio::task::yield_now().await;
    }
}
