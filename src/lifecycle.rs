//! Whether the server takes messages: before the worker runs, while it runs, while it drains.

use std::sync::Arc;
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
    /// The worker's task was dropped or panicked, without a drain.
    Ended,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "not started",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl Lifecycle {
    pub(crate) fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Opening,
            2 => Stage::Running,
            3 => Stage::Draining,
            _ => Stage::Ended,
        }
    }

    pub(crate) fn set(&self, stage: Stage) {
        let value = match stage {
            Stage::Idle => 0,
            Stage::Opening => 1,
            Stage::Running => 2,
            Stage::Draining => 3,
            Stage::Ended => 4,
        };
        self.0.store(value, Ordering::Release);
    }

    /// Marks the worker as ended when the guard is dropped, unless it drained.
    pub(crate) fn end_on_drop(self: &Arc<Self>) -> EndOnDrop {
        EndOnDrop(self.clone())
    }
}

/// The guard of [`Lifecycle::end_on_drop`].
pub(crate) struct EndOnDrop(Arc<Lifecycle>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if self.0.stage() != Stage::Draining {
            self.0.set(Stage::Ended);
        }
    }
}
