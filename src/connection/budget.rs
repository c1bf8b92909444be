//! [`Budget`]: a limit on the bytes of all unverified requests together.
//!
//! Any client can send a head and a body up to their limits on every connection. Without a budget, limits times
//! connections can exceed the memory. The first 8 KiB of a request are free, so that a flood of large requests never
//! causes a message of up to this size to be dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::lock::IgnorePoison;
/// Number of bytes of a request that are not charged. A usual message of Twilio's has fewer, including its head.
pub(super) const FREE_BYTES: usize = 8192;

/// A connection whose request the budget can drop.
pub(super) trait ChargedConnection: Send + Sync {
    fn id(&self) -> u64;
    /// Adds bytes to those that are charged for its request.
    fn add_charge(&self, bytes: usize);
    /// Returns the received bytes per second since the request began.
    fn bytes_per_second(&self, now: Instant) -> u64;
    /// Drops the request if it is not verified, and returns the bytes that were charged for it.
    fn drop_request(&self) -> Option<usize>;
}

/// The budget of a listener, shared by its connections.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Connections with more than the free bytes.
    // No other lock of this crate is acquired while this one is held. `on_drop` is called after its release.
    charged: Mutex<HashMap<u64, Arc<dyn ChargedConnection>>>,
    on_drop: Box<dyn Fn(usize) + Send + Sync>,
}

impl Budget {
    /// Creates a budget. `on_drop` is called with the number of dropped requests.
    pub(crate) fn new(limit: usize, on_drop: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            charged: Mutex::default(),
            on_drop: Box::new(on_drop),
        }
    }

    fn charged(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn ChargedConnection>>> {
        self.charged.lock().ignore_poison()
    }

    /// Charges bytes of a connection, and drops the slowest requests if the budget is exceeded.
    pub(super) fn add(
        &self,
        connection: &Arc<impl ChargedConnection + 'static>,
        bytes: usize,
        is_first: bool,
    ) {
        // `used` first. With the opposite order, another thread could drop the request in between, and subtract the
        // bytes from `used` before they are added, which would underflow.
        let used = self.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        connection.add_charge(bytes);
        if is_first {
            self.charged().insert(connection.id(), connection.clone());
        }
        if used > self.limit {
            self.drop_slowest();
        }
    }

    // Callers subtract only bytes that they took out of a connection's `charged`, so `used` never underflows.
    pub(super) fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(super) fn remove(&self, connection: u64) {
        self.charged().remove(&connection);
    }

    /// Drops the requests with the lowest rates until the budget has free bytes again.
    // The rate decides, not size or age: an attacker who holds memory by sending slowly loses first.
    fn drop_slowest(&self) {
        let mut charged = self.charged();
        // Drop 1/32 more than needed, since each call compares all connections.
        let target = self.limit - self.limit / 32;
        // Another thread may have freed enough while this one waited for the lock.
        if self.used.load(Ordering::Acquire) <= self.limit {
            return;
        }
        let now = Instant::now();
        let mut by_rate: Vec<_> = charged
            .iter()
            .map(|(id, connection)| (connection.bytes_per_second(now), *id))
            .collect();
        by_rate.sort_unstable();
        let mut dropped = 0;
        for (_, id) in by_rate {
            if self.used.load(Ordering::Acquire) <= target {
                break;
            }
            // `None` if the request was verified or got its response in the meantime. Its own task then subtracts the
            // charge.
            if let Some(bytes) = charged[&id].drop_request() {
                self.subtract(bytes);
                charged.remove(&id);
                dropped += 1;
            }
        }
        // Release the lock before the callback, which writes a log line.
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
    use replyhook_core::signature::layer::ConnectionHooks;

    use super::super::ConnectionState;
    use super::*;

    fn connections(limit: usize, number: usize) -> Vec<Arc<ConnectionState>> {
        let budget = Arc::new(Budget::new(limit, |_| {}));
        let new = |id| Arc::new(ConnectionState::new(id as u64, Some(budget.clone())));
        (0..number).map(new).collect()
    }

    fn receive(connection: &Arc<ConnectionState>, bytes: usize) {
        let _ = connection.record_read(bytes);
    }

    fn wait() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    #[test]
    fn budget_exceeded_drops_slowest_request_not_newest() {
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
        assert!(!slow.record_verified());
        assert!(new.record_verified());
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
    fn charge_ends_on_verification_response_discard_or_close() {
        let connections = connections(10_000, 2);
        let [first, second] = &connections[..] else {
            unreachable!()
        };
        let used = || first.budget.as_ref().unwrap().used.load(Ordering::Relaxed);
        receive(first, FREE_BYTES + 5000);
        assert_eq!(used(), 5000);
        assert!(first.begin_request());
        assert!(first.record_verified());
        assert_eq!(used(), 0);
        receive(second, FREE_BYTES + 5000);
        assert!(second.begin_request());
        second.discard(4000);
        assert_eq!(used(), 1000);
        second.begin_response(false);
        assert_eq!(used(), 0);
        second.record_flush(false);
        receive(second, FREE_BYTES + 7000);
        assert_eq!(used(), 7000);
        second.release_charge();
        assert_eq!(used(), 0);
        assert!(first.budget.as_ref().unwrap().charged().is_empty());
    }
}
