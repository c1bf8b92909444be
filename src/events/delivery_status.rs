//! [`DeliveryStatus`]: whether the service still wants events.

use std::sync::atomic::{AtomicBool, Ordering};

/// State of the delivery, which the worker sets, and which a reload of the settings resets.
// Relaxed everywhere: the flags publish no other data.
#[derive(Default)]
pub(crate) struct DeliveryStatus {
    is_stopped: AtomicBool,
    is_failing: AtomicBool,
}

impl DeliveryStatus {
    /// Returns true after the service has responded with 410.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Stops the delivery. Returns false if it was stopped already.
    pub(super) fn stop(&self) -> bool {
        !self.is_stopped.swap(true, Ordering::Relaxed)
    }

    /// Starts the delivery again, after a reload of the settings.
    pub(crate) fn resume(&self) {
        self.is_stopped.store(false, Ordering::Relaxed);
    }

    /// Records the outcome of a delivery. Returns true if it differs from the one before.
    pub(super) fn record(&self, has_failed: bool) -> bool {
        self.is_failing.swap(has_failed, Ordering::Relaxed) != has_failed
    }
}
