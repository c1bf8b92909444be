//! [`ConnectionTable`]: the connections of a listener, their limit, and the choice of the one to evict at the limit.
//!
//! Connections that never carried a verified request are evicted first, the oldest before the others. So a new
//! connection lasts at least as long as a flood needs to replace all others. Idle connections that have carried a
//! verified request are evicted only if all connections are of this kind, the longest idle first. A verified
//! connection with a request in flight is never evicted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::ConnectionLimits;
use crate::connection::{Budget, ConnectionState, Eviction};
use crate::lock::IgnorePoison;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// Maximum number of evicted connections whose tasks have not ended yet.
// Each of them still has its file descriptor. `descriptors` reserves descriptors for them.
pub(crate) const MAX_CLOSING_CONNECTIONS: usize = 64;

// A request that completes does not notify the table, so that requests cost nothing here. While all connections are
// busy, the table checks them again after this time.
const ALL_BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// The connections of a listener.
pub(super) struct ConnectionTable {
    limit: usize,
    max_ending: usize,
    /// False for a private listener: at the limit, a new connection waits until one ends.
    can_evict: bool,
    budget: Option<Arc<Budget>>,
    metrics: Arc<Metrics>,
    limit_warnings: Throttle,
    entries: Mutex<Entries>,
    /// Notified when a connection has ended.
    // Only the accept loop waits for it, in `admit` or `shut_down`. `notify_one` stores a permit if it is not waiting
    // yet, so an end between its check and `notified` is not missed.
    ended: Notify,
}

/// The connections, in the orders in which they are considered for eviction.
// An order may be out of date: `evict_one` corrects an entry when it considers it, so that a request needs no lock
// here. The lock of the table is never held together with that of the budget.
#[derive(Default)]
struct Entries {
    next_id: u64,
    /// Number of evicted connections that have not ended.
    ending: usize,
    all: HashMap<u64, ConnectionEntry>,
    /// Connections without a verified request, by age: IDs are assigned in the order of accepting.
    unverified: BTreeSet<u64>,
    /// Connections without a verified request on which a request has just begun, by the end of their protection.
    protected: BTreeSet<(Instant, u64)>,
    /// Connections that have carried a verified request, by the start of their idle time.
    verified: BTreeSet<(Instant, u64)>,
}

struct ConnectionEntry {
    state: Arc<ConnectionState>,
    order: EvictionOrder,
}

/// The set that contains an entry, with the time in its key.
#[derive(Clone, Copy)]
enum EvictionOrder {
    Unverified,
    Protected(Instant),
    Verified(Instant),
}

/// The reason why no connection could be evicted.
enum AdmitError {
    /// Only the end of a connection frees capacity.
    WaitForEnd,
    /// A connection may be evicted at this time.
    RetryAt(Instant),
}

impl Entries {
    fn set_order(&mut self, id: u64, order: EvictionOrder) {
        let Some(entry) = self.all.get_mut(&id) else {
            return;
        };
        let previous = std::mem::replace(&mut entry.order, order);
        self.remove_order(id, previous);
        match order {
            EvictionOrder::Unverified => self.unverified.insert(id),
            EvictionOrder::Protected(until) => self.protected.insert((until, id)),
            EvictionOrder::Verified(since) => self.verified.insert((since, id)),
        };
    }

    fn remove_order(&mut self, id: u64, order: EvictionOrder) {
        match order {
            EvictionOrder::Unverified => self.unverified.remove(&id),
            EvictionOrder::Protected(until) => self.protected.remove(&(until, id)),
            EvictionOrder::Verified(since) => self.verified.remove(&(since, id)),
        };
    }

    /// Removes a connection; false if it was evicted before.
    fn remove(&mut self, id: u64) -> bool {
        let Some(entry) = self.all.remove(&id) else {
            return false;
        };
        self.remove_order(id, entry.order);
        true
    }

    fn insert(&mut self, budget: Option<Arc<Budget>>) -> Arc<ConnectionState> {
        let id = self.next_id;
        self.next_id += 1;
        let state = Arc::new(ConnectionState::new(id, budget));
        let entry = ConnectionEntry {
            state: state.clone(),
            order: EvictionOrder::Unverified,
        };
        self.all.insert(id, entry);
        self.unverified.insert(id);
        state
    }

    fn mark_evicted(&mut self, id: u64) {
        self.remove(id);
        self.ending += 1;
    }

    /// Evicts one connection.
    fn evict_one(&mut self, now: Instant) -> Result<(), AdmitError> {
        // Protection has ended: back into the order by age.
        while let Some(&(until, id)) = self.protected.first()
            && until <= now
        {
            self.set_order(id, EvictionOrder::Unverified);
        }
        // Each pass evicts the entry or moves it to another set, so the loop ends.
        while let Some(&id) = self.unverified.first() {
            let order = match self.all[&id].state.evict_unverified(now) {
                Eviction::Evicted => {
                    self.mark_evicted(id);
                    return Ok(());
                }
                Eviction::ProtectedUntil(until) => EvictionOrder::Protected(until),
                Eviction::VerifiedIdle(since) => EvictionOrder::Verified(since),
                // Busy: once it is idle, its idle time begins later than now.
                Eviction::VerifiedBusy => EvictionOrder::Verified(now),
            };
            self.set_order(id, order);
        }
        // Wait for a protected connection rather than evict a verified one. Protection lasts a second at most, while
        // the client of a verified connection may be about to send its next request on it.
        if let Some(&(until, _)) = self.protected.first() {
            return Err(AdmitError::RetryAt(until));
        }
        // Considers each entry once: one that cannot be evicted gets a later time and moves back.
        for _ in 0..self.verified.len() {
            let Some(&(since, id)) = self.verified.first() else {
                break;
            };
            match self.all[&id].state.evict_idle(since) {
                Eviction::Evicted => {
                    self.mark_evicted(id);
                    return Ok(());
                }
                Eviction::VerifiedIdle(since) => self.set_order(id, EvictionOrder::Verified(since)),
                // Busy. Once it is idle, its idle time begins later than now.
                _ => self.set_order(id, EvictionOrder::Verified(now)),
            }
        }
        Err(AdmitError::RetryAt(now + ALL_BUSY_INTERVAL))
    }
}

impl ConnectionTable {
    pub(super) fn new(limits: &ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        let limit = limits.connections;
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics.connections_limit.set(limit as f64);
        Self {
            limit,
            // Evicted connections that have not ended exceed a small limit by an eighth at most.
            max_ending: (limit / 8).clamp(1, MAX_CLOSING_CONNECTIONS),
            can_evict: limits.requires_signatures,
            budget: limits
                .requires_signatures
                .then(|| create_budget(limits, &metrics)),
            metrics,
            limit_warnings: Throttle::new(3),
            entries: Mutex::default(),
            ended: Notify::new(),
        }
    }

    // A panic while the lock is held poisons it. The entries are still usable, and the server must go on accepting.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().ignore_poison()
    }

    /// Waits until a further connection is allowed, and evicts one at the limit if possible.
    pub(super) async fn admit(self: &Arc<Self>) -> ConnectionPermit {
        loop {
            let error = match self.try_admit() {
                Ok(permit) => return permit,
                Err(error) => error,
            };
            let next_attempt = async {
                match error {
                    AdmitError::WaitForEnd => std::future::pending().await,
                    AdmitError::RetryAt(time) => tokio::time::sleep_until(time.into()).await,
                }
            };
            tokio::select! {
                () = self.ended.notified() => {}
                () = next_attempt => {}
            }
        }
    }

    // Checking the limit, evicting and inserting happen under one lock, so the limit is never exceeded.
    fn try_admit(self: &Arc<Self>) -> Result<ConnectionPermit, AdmitError> {
        let mut entries = self.entries();
        if entries.all.len() >= self.limit {
            let eviction = if self.can_evict && entries.ending < self.max_ending {
                entries.evict_one(Instant::now())
            } else {
                Err(AdmitError::WaitForEnd)
            };
            self.report_limit_reached(eviction.is_ok());
            eviction?;
        }
        let state = entries.insert(self.budget.clone());
        self.update_gauge(&entries);
        Ok(ConnectionPermit {
            state,
            table: self.clone(),
        })
    }

    fn report_limit_reached(&self, is_evicted: bool) {
        if is_evicted {
            self.metrics.connections_evicted.inc();
        }
        if let Some(suppressed) = self.limit_warnings.try_log() {
            let limit = self.limit;
            if is_evicted {
                tracing::warn!(
                    limit,
                    suppressed,
                    "connection limit reached: closed an unverified or idle connection for a new one"
                );
            } else {
                tracing::warn!(
                    limit,
                    suppressed,
                    "connection limit reached: a new connection waits"
                );
            }
        }
    }

    fn update_gauge(&self, entries: &Entries) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.metrics.connections.set(entries.all.len() as f64);
    }

    fn end_connection(&self, id: u64) {
        let mut entries = self.entries();
        // An evicted connection was removed before, and counts in `ending` until its task has ended.
        if !entries.remove(id) {
            entries.ending -= 1;
        }
        self.update_gauge(&entries);
        // Unlock before notifying, so that the accept loop does not wake up only to wait for the lock.
        drop(entries);
        self.ended.notify_one();
    }

    /// Asks all connections to end after their requests in flight, and waits until they have ended.
    pub(super) async fn shut_down(&self) {
        // The accept loop has ended, so no connection is added after this pass. Evicted connections end by themselves.
        for entry in self.entries().all.values() {
            entry.state.shut_down();
        }
        loop {
            // The block drops the guard, which must not be held across the await.
            {
                let entries = self.entries();
                if entries.all.is_empty() && entries.ending == 0 {
                    return;
                }
            }
            self.ended.notified().await;
        }
    }
}

/// Creates a budget that counts and logs dropped requests.
fn create_budget(limits: &ConnectionLimits, metrics: &Arc<Metrics>) -> Arc<Budget> {
    let (limit, metrics) = (limits.unverified_bytes, metrics.clone());
    let warnings = Throttle::new(3);
    Arc::new(Budget::new(limit, move |dropped| {
        metrics.unverified_dropped.inc_by(dropped as u64);
        if let Some(suppressed) = warnings.try_log() {
            tracing::warn!(
                limit,
                dropped,
                suppressed,
                "limit of unverified bytes reached (server.unverified_bytes): dropped the slowest requests"
            );
        }
    }))
}

/// Permit of one connection, which counts against the limit until it is dropped.
pub(super) struct ConnectionPermit {
    state: Arc<ConnectionState>,
    table: Arc<ConnectionTable>,
}

impl ConnectionPermit {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.table.end_connection(self.state.id());
    }
}
