//! Panics in units of background work, such as one message of the outbox.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::metrics::Metrics;

/// Runs the work for one message. Logs and counts a panic, and returns `None`: the caller must then set the message
/// aside.
pub(crate) async fn catch_panic<T>(
    metrics: &Metrics,
    task: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    // Unwind safe: locks that a panic can poison state where they are locked why they stay usable.
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    if outcome.is_err() {
        metrics.background_failure(task);
        tracing::error!(
            task,
            "background work panicked and is set aside: this is a bug in replyhook"
        );
    }
    outcome.ok()
}
