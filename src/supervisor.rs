//! Supervision of background tasks: a task that panics or ends is restarted, and a task that keeps failing ends the
//! server.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::lifecycle::Lifecycle;
use crate::telemetry::metrics::Metrics;

/// Number of failures within [`Supervisor::window`] after which a task is not restarted.
const MAX_FAILURES: usize = 3;

/// Runs background tasks, and restarts those that fail.
pub(crate) struct Supervisor {
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    /// Time within which failures count.
    window: Duration,
    /// Delay before the first restart. It doubles with each failure in the window.
    first_delay: Duration,
}

/// A task that failed [`MAX_FAILURES`] times within [`Supervisor::window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskFailed(pub(crate) &'static str);

impl Supervisor {
    pub(crate) fn new(lifecycle: Arc<Lifecycle>, metrics: Arc<Metrics>) -> Self {
        Self {
            lifecycle,
            metrics,
            window: Duration::from_mins(1),
            first_delay: Duration::from_millis(100),
        }
    }

    /// Runs a task that should never end, and restarts it when it does. Returns when it has failed too often.
    ///
    /// While the task is down, the server is not ready and rejects messages: it must not acknowledge what it cannot
    /// finish.
    pub(crate) async fn run<F>(
        &self,
        task: &'static str,
        mut start: impl FnMut() -> F,
    ) -> TaskFailed
    where
        F: Future<Output = ()>,
    {
        let mut failures = VecDeque::new();
        loop {
            // Inside of the async block, so that a panic of `start` itself is caught as well. Unwind safe: nothing of the
            // task is used after its panic.
            let ended = AssertUnwindSafe(async { start().await })
                .catch_unwind()
                .await;
            let _down = self.lifecycle.task_down();
            self.metrics.background_failure(task);
            let now = Instant::now();
            failures.retain(|at| now.duration_since(*at) < self.window);
            failures.push_back(now);
            let (panicked, failures) = (ended.is_err(), failures.len());
            tracing::error!(
                task,
                panicked,
                failures,
                "a background task ended: this is a bug in replyhook"
            );
            if failures >= MAX_FAILURES {
                return TaskFailed(task);
            }
            // Real time: the task's own clock may be one of a test.
            let doublings = u32::try_from(failures - 1).unwrap_or(0);
            tokio::time::sleep(self.first_delay * 2_u32.pow(doublings)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::lifecycle::Stage;

    fn supervisor() -> Supervisor {
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.set(Stage::Running);
        Supervisor::new(lifecycle, Arc::new(Metrics::new()))
    }

    #[tokio::test]
    async fn third_failure_in_a_minute_is_final() {
        let supervisor = supervisor();
        let starts = AtomicU32::new(0);
        let failed = supervisor
            .run("outbox", || async {
                match starts.fetch_add(1, Ordering::Relaxed) {
                    // Ends without a panic, which a task must not do either.
                    1 => {}
                    _ => panic!("a bug"),
                }
            })
            .await;
        assert_eq!((failed, starts.into_inner()), (TaskFailed("outbox"), 3));
    }

    // A sleep takes at least its time, so there are never three failures within the window.
    #[tokio::test]
    async fn rare_failures_are_restarted_without_end() {
        let window = Duration::from_millis(20);
        let supervisor = Supervisor {
            window,
            first_delay: Duration::from_millis(1),
            ..supervisor()
        };
        let starts = AtomicU32::new(0);
        let run = supervisor.run("outbox", || async {
            starts.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(window / 2).await;
            assert!(starts.load(Ordering::Relaxed) > 9, "a bug");
            std::future::pending::<()>().await;
        });
        // Restarted ten times: then the task stays.
        let until_ten = async {
            while starts.load(Ordering::Relaxed) < 10 {
                tokio::time::sleep(window).await;
            }
        };
        tokio::select! {
            failed = run => panic!("{failed:?}"),
            () = until_ten => {}
        }
    }

    #[tokio::test]
    async fn server_is_recovering_until_task_restarts() {
        let supervisor = supervisor();
        let lifecycle = supervisor.lifecycle.clone();
        let starts = AtomicU32::new(0);
        let run = supervisor.run("outbox", || async {
            assert_eq!(lifecycle.stage(), Stage::Running);
            if starts.fetch_add(1, Ordering::Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
        });
        let mut run = std::pin::pin!(run);
        assert!(futures_util::poll!(run.as_mut()).is_pending());
        assert_eq!(lifecycle.stage(), Stage::Recovering);
        let restarted = tokio::time::timeout(supervisor.first_delay * 2, run);
        assert!(restarted.await.is_err());
        assert_eq!(lifecycle.stage(), Stage::Running);
    }
}
