//! Load shedding: a limit on verified requests in flight.
//!
//! Only verified requests count: unauthenticated clients can use up connections, and not the capacity for Twilio.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::Endpoint;

/// The limit, with a reserve for fallback calls.
// An atomic counter and not a `Semaphore`, because fallback calls have a higher limit on the same count.
#[derive(Debug)]
pub(crate) struct InFlightLimit {
    max: usize,
    fallback_reserve: usize,
    in_flight: Arc<AtomicUsize>,
}

impl InFlightLimit {
    /// Creates a limit of `max` requests. Fallback calls may use `fallback_reserve` more, so that overload cannot
    /// starve them.
    pub(crate) fn new(max: usize, fallback_reserve: usize) -> Self {
        Self {
            max,
            fallback_reserve,
            in_flight: Arc::default(),
        }
    }

    /// Acquires a permit, which is released on drop; `None` if the limit is reached.
    pub(super) fn try_acquire(&self, endpoint: Endpoint) -> Option<InFlightPermit> {
        let reserve = if endpoint == Endpoint::Fallback {
            self.fallback_reserve
        } else {
            0
        };
        let permit = InFlightPermit(self.in_flight.clone());
        // Count first and compare after, in one atomic step: of two concurrent requests only one sees the last free
        // count. If the limit is reached, dropping `permit` here takes the count back. Relaxed: the counter
        // protects no other data.
        let before = permit.0.fetch_add(1, Ordering::Relaxed);
        (before < self.max + reserve).then_some(permit)
    }
}

/// The permit of one request.
#[derive(Debug)]
pub(super) struct InFlightPermit(Arc<AtomicUsize>);

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
