//! [`StoreReport`]: counts and logs failed store operations.

use std::sync::Arc;

use super::metrics::Metrics;
use super::store_health::{StoreFailure, StoreHealth};
use super::throttle::Throttle;
use crate::store::StoreError;

/// Records failed store operations in metrics, health and log.
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

    /// Records the failure of an operation whose result is an error.
    pub(crate) fn record_error<T>(
        &self,
        operation: &'static str,
        result: Result<T, StoreError>,
    ) -> Result<T, ()> {
        result.map_err(|error| self.record_failure(operation, &error))
    }

    /// Records a failed operation. Its name is a label of `replyhook_store_errors_total`.
    pub(crate) fn record_failure(&self, operation: &'static str, failure: &dyn StoreFailure) {
        self.metrics.store_error(operation);
        self.health.record_failure(failure);
        // During an outage every message fails, so log lines are limited. Metrics count all failures.
        if let Some(suppressed) = self.throttle.try_log() {
            tracing::error!(operation, suppressed, "store operation failed: {failure}");
        }
    }
}
