//! Permits of running handlers (`handler.max_concurrent`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::Metrics;

/// Permit for one running handler, released on drop.
pub(super) struct HandlerPermit {
    running: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl HandlerPermit {
    /// Acquires a permit, unless `limit` handlers are running.
    pub(super) fn try_acquire(
        running: &Arc<AtomicUsize>,
        limit: usize,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        // Add first, then compare: two requests cannot both take the last permit. No other data depends on the counter.
        if running.fetch_add(1, Ordering::AcqRel) >= limit {
            running.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        metrics.handlers_running.inc();
        Some(Self {
            running: running.clone(),
            metrics: metrics.clone(),
        })
    }
}

impl Drop for HandlerPermit {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.metrics.handlers_running.dec();
    }
}
