//! Permits of running handlers (`handler.max_concurrent`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::Metrics;

/// Permits of all handlers.
pub(super) struct HandlerPermits {
    /// Number of running handlers.
    running: Arc<AtomicUsize>,
    limit: usize,
    metrics: Arc<Metrics>,
}

/// Permit for one running handler, released on drop.
pub(super) struct HandlerPermit {
    running: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl HandlerPermits {
    /// Creates `limit` permits.
    pub(super) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            running: Arc::default(),
            limit,
            metrics,
        }
    }

    /// Acquires a permit, unless all are in use.
    pub(super) fn try_acquire(&self) -> Option<HandlerPermit> {
        // Add first, then compare: two requests cannot both take the last permit. No other data depends on the counter.
        if self.running.fetch_add(1, Ordering::AcqRel) >= self.limit {
            self.running.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.metrics.handlers_running.inc();
        Some(HandlerPermit {
            running: self.running.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Returns the number of free permits.
    // Relaxed: an estimate. Requests may take or release permits at any time.
    pub(super) fn available(&self) -> usize {
        self.limit
            .saturating_sub(self.running.load(Ordering::Relaxed))
    }
}

impl Drop for HandlerPermit {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.metrics.handlers_running.dec();
    }
}
