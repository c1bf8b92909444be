//! Stage of the server, which decides whether it accepts messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The current [`Stage`], shared by the worker, which sets it, and the endpoints, which accept or reject requests by
/// it.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    stage: AtomicU8,
    /// Number of background tasks that have ended and are not restarted yet.
    tasks_down: AtomicU32,
}

/// A stage of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The worker does not run yet. The caller of [`App::into_parts`](crate::App::into_parts) has to spawn it.
    Idle,
    /// The worker opens the store.
    Opening,
    Running,
    /// As `Running`, but a background task has ended and is not restarted yet: new messages are rejected.
    Recovering,
    /// The server shuts down: it rejects new messages and finishes those in progress.
    Draining,
    /// The worker's future was dropped, failed or panicked without a graceful shutdown.
    Ended,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "not started",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Recovering => "recovering",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl Lifecycle {
    pub(crate) fn stage(&self) -> Stage {
        // Pairs with the Release store in `set`: a thread that reads `Running` also sees everything that the worker did
        // before, such as opening the store.
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Opening,
            // Relaxed: the count publishes no other data.
            2 if self.tasks_down.load(Ordering::Relaxed) > 0 => Stage::Recovering,
            2 => Stage::Running,
            3 => Stage::Draining,
            _ => Stage::Ended,
        }
    }

    pub(crate) fn set(&self, stage: Stage) {
        let value = match stage {
            Stage::Idle => 0,
            Stage::Opening => 1,
            Stage::Running | Stage::Recovering => 2,
            Stage::Draining => 3,
            Stage::Ended => 4,
        };
        // Release: see `stage`. A plain store suffices: if two tasks set a stage concurrently, either may win.
        self.stage.store(value, Ordering::Release);
    }

    /// Makes the stage [`Stage::Recovering`] instead of [`Stage::Running`] until the returned guard is dropped.
    pub(crate) fn task_down(&self) -> TaskDown<'_> {
        self.tasks_down.fetch_add(1, Ordering::Relaxed);
        TaskDown(self)
    }

    /// Returns a guard that sets [`Stage::Ended`] when it is dropped, unless the stage is [`Stage::Draining`].
    pub(crate) fn end_on_drop(self: &Arc<Self>) -> EndOnDrop {
        EndOnDrop(self.clone())
    }
}

/// The guard of [`Lifecycle::task_down`].
pub(crate) struct TaskDown<'a>(&'a Lifecycle);

impl Drop for TaskDown<'_> {
    fn drop(&mut self) {
        self.0.tasks_down.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The guard of [`Lifecycle::end_on_drop`].
pub(crate) struct EndOnDrop(Arc<Lifecycle>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // After a graceful shutdown the stage stays at `Draining`, whose response is "shutting down".
        if self.0.stage() != Stage::Draining {
            self.0.set(Stage::Ended);
        }
    }
}
