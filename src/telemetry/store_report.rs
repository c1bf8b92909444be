//! What the store did not do: counted by its step, and said at most so often.

use std::sync::Arc;

use super::metrics::Metrics;
use super::{StoreFailure, StoreHealth, Throttle};

/// Where whoever asks the store says that it failed.
pub(crate) struct StoreReport {
    metrics: Arc<Metrics>,
    pub(crate) health: Arc<StoreHealth>,
    throttle: Throttle,
}

impl StoreReport {
    pub(crate) fn new(metrics: Arc<Metrics>, health: Arc<StoreHealth>) -> Self {
        Self {
            metrics,
            health,
            throttle: Throttle::new(10),
        }
    }

    pub(crate) fn failed(&self, step: &'static str, failure: &dyn StoreFailure) {
        self.metrics.store_error(step);
        self.health.failed(failure);
        if let Some(suppressed) = self.throttle.pass() {
            tracing::error!(
                operation = step,
                suppressed,
                "store operation failed: {failure}"
            );
        }
    }
}
