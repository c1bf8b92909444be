//! Budget for bytes that have been received and are not verified yet.
//!
//! Anyone can send a head and a body up to their limits, on every connection there is: without a budget the limits multiply to
//! more memory than there is. The first bytes of a request are free, so that a message is never in the way of a large one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ConnectionState;

/// Bytes of a request that cost nothing: more than a message of Twilio's with its head has.
pub(super) const FREE_BYTES: usize = 8192;

/// Budget shared by the connections of a listener.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Connections with more than the free bytes.
    charged: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    on_drop: Box<dyn Fn(usize) + Send + Sync>,
}

impl Budget {
    /// `on_drop` is called with the number of requests that were dropped.
    pub(crate) fn new(limit: usize, on_drop: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            charged: Mutex::default(),
            on_drop: Box::new(on_drop),
        }
    }

    fn charged(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, connection: &Arc<ConnectionState>, bytes: usize, is_first: bool) {
        // In this order, since another thread may drop the request and subtract what it was charged.
        let used = self.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        connection.charged.fetch_add(bytes, Ordering::AcqRel);
        if is_first {
            self.charged().insert(connection.id, connection.clone());
        }
        if used > self.limit {
            self.drop_slowest();
        }
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(super) fn forget(&self, connection: &ConnectionState) {
        self.charged().remove(&connection.id);
    }

    /// Drops the requests that arrive most slowly, and a little more than is needed: each time all are compared.
    fn drop_slowest(&self) {
        let mut charged = self.charged();
        let target = self.limit - self.limit / 32;
        if self.used.load(Ordering::Acquire) <= self.limit {
            return;
        }
        let now = Instant::now();
        let mut by_rate: Vec<_> = charged
            .iter()
            .map(|(id, connection)| (connection.rate(now), *id))
            .collect();
        by_rate.sort_unstable();
        let mut dropped = 0;
        for (_, id) in by_rate {
            if self.used.load(Ordering::Acquire) <= target {
                break;
            }
            if let Some(bytes) = charged[&id].drop_request() {
                self.subtract(bytes);
                charged.remove(&id);
                dropped += 1;
            }
        }
        drop(charged);
        if dropped > 0 {
            (self.on_drop)(dropped);
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(limit: usize, number: usize) -> Vec<Arc<ConnectionState>> {
        let budget = Arc::new(Budget::new(limit, |_| {}));
        let new = |id| Arc::new(ConnectionState::new(id as u64, Some(budget.clone())));
        (0..number).map(new).collect()
    }

    fn receive(connection: &Arc<ConnectionState>, bytes: usize) {
        let _ = connection.bytes_read(bytes);
    }

    fn wait() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    #[test]
    fn slowest_request_is_dropped_and_not_the_newest() {
        let connections = connections(40_000, 3);
        let [slow, fast, new] = &connections[..] else {
            unreachable!()
        };
        receive(slow, FREE_BYTES + 3000);
        receive(fast, FREE_BYTES + 27_000);
        wait();
        receive(new, FREE_BYTES + 9000);
        assert!(!slow.is_dropped());
        receive(new, 1500);
        let dropped = connections.iter().map(|connection| connection.is_dropped());
        assert_eq!(dropped.collect::<Vec<_>>(), [true, false, false]);
        assert!(!slow.verified());
        assert!(new.verified());
    }

    #[test]
    fn free_bytes_are_never_dropped_and_never_charged() {
        let connections = connections(1000, 100);
        for connection in &connections[1..] {
            receive(connection, FREE_BYTES);
        }
        wait();
        receive(&connections[0], FREE_BYTES + 1001);
        assert!(connections[0].is_dropped());
        assert!(connections[1..].iter().all(|other| !other.is_dropped()));
    }

    #[test]
    fn account_is_released_by_verification_response_discarding_and_end() {
        let connections = connections(10_000, 2);
        let [first, second] = &connections[..] else {
            unreachable!()
        };
        let used = || first.budget.as_ref().unwrap().used.load(Ordering::Relaxed);
        receive(first, FREE_BYTES + 5000);
        assert_eq!(used(), 5000);
        assert!(first.request_begins());
        assert!(first.verified());
        assert_eq!(used(), 0);
        receive(second, FREE_BYTES + 5000);
        assert!(second.request_begins());
        second.discard(4000);
        assert_eq!(used(), 1000);
        second.responds(false);
        assert_eq!(used(), 0);
        second.flushed();
        receive(second, FREE_BYTES + 7000);
        assert_eq!(used(), 7000);
        second.release();
        assert_eq!(used(), 0);
        assert!(first.budget.as_ref().unwrap().charged().is_empty());
    }
}
