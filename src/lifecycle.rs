//! Whether the server takes messages: before the worker runs, while it runs, while it drains.

use std::sync::atomic::{AtomicU8, Ordering};

/// Shared by everything that takes or refuses work.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle(AtomicU8);

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The worker does not run yet: whoever took the router has to spawn it.
    Idle,
    /// The store is being opened.
    Opening,
    Running,
    Draining,
}

impl Lifecycle {
    pub(crate) fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Opening,
            2 => Stage::Running,
            _ => Stage::Draining,
        }
    }

    pub(crate) fn set(&self, stage: Stage) {
        let value = match stage {
            Stage::Idle => 0,
            Stage::Opening => 1,
            Stage::Running => 2,
            Stage::Draining => 3,
        };
        self.0.store(value, Ordering::Release);
    }
}
