//! How many verified requests are answered at once. Only verified ones take room: what a stranger keeps open costs
//! connections, and not Twilio's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::Endpoint;

/// Room for requests, and some more for fallback calls.
#[derive(Debug)]
pub(crate) struct Room {
    most: usize,
    fallback_reserve: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    /// Beyond `most` a request finds no room; a fallback call finds it up to `fallback_reserve` further.
    pub(crate) fn new(most: usize, fallback_reserve: usize) -> Self {
        Self {
            most,
            fallback_reserve,
            taken: Arc::default(),
        }
    }

    /// A place, as long as what is returned lives.
    pub(super) fn take(&self, endpoint: Endpoint) -> Option<Place> {
        let reserve = if endpoint == Endpoint::Fallback {
            self.fallback_reserve
        } else {
            0
        };
        let place = Place(self.taken.clone());
        let taken = place.0.fetch_add(1, Ordering::AcqRel);
        (taken < self.most + reserve).then_some(place)
    }
}

/// One request's place.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
