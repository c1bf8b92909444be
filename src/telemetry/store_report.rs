//! What the store did not do: counted by its step, and said at most so often.

use std::fmt::Display;
use std::sync::Arc;

use super::Throttle;
use super::metrics::Metrics;

/// Where whoever asks the store says that it failed.
pub(crate) struct StoreReport {
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

impl StoreReport {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            throttle: Throttle::new(10),
        }
    }

    pub(crate) fn failed(&self, step: &'static str, error: &dyn Display) {
        self.metrics.store_error(step);
        if let Some(held) = self.throttle.pass() {
            tracing::error!(step, held, "the store did not do its part: {error}");
        }
    }
}
