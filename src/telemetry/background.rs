//! Panics in units of background work, such as one message of the outbox.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::metrics::Metrics;

/// Runs one unit of background work, such as one message. Returns `None` if it panicked, which is logged and counted:
/// the caller sets the unit aside, so that it is not tried again and again.
pub(crate) async fn catch_unit<T>(
    metrics: &Metrics,
    task: &'static str,
    unit: impl Future<Output = T>,
) -> Option<T> {
    // Unwind safe: locks that a panic can poison state at their definition why they stay usable.
    let outcome = AssertUnwindSafe(unit).catch_unwind().await;
    if outcome.is_err() {
        metrics.background_failure(task);
        tracing::error!(
            task,
            "background work panicked and is set aside: this is a bug in replyhook"
        );
    }
    outcome.ok()
}
