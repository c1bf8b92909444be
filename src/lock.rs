//! Locks of std, whose poisoning is ignored.

use std::sync::{LockResult, PoisonError};

/// Access to the value of a lock that may be poisoned.
// A lock is poisoned when a thread panics while it holds the lock, because the value may then be half changed. In this
// crate each change under a lock leaves a valid value, so the value is still usable. One panic must not fail every later
// request.
pub(crate) trait IgnorePoison {
    /// The lock's guard.
    type Guard;

    /// Returns the guard, also of a poisoned lock.
    fn ignore_poison(self) -> Self::Guard;
}

impl<G> IgnorePoison for LockResult<G> {
    type Guard = G;

    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}
