//! The connections of a listener: how many there are, and which one goes when there are too many.
//!
//! A peer that has never signed anything is the first to go, the oldest before the others: a fresh connection has the time
//! that strangers need to replace all others. Idle connections that have carried a verified request go only where there are
//! no others, the longest idle first. One with a request under way stays.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::ConnectionLimits;
use crate::connection::{Budget, ConnectionState, Eviction};
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// Most evicted connections whose tasks have not ended yet; each still has its file descriptor.
pub(crate) const MAX_ENDING: usize = 64;

/// Time until all connections are looked at again when all of them were busy.
const ALL_BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// Table of the connections of a listener.
pub(super) struct Table {
    limit: usize,
    max_ending: usize,
    evicts: bool,
    budget: Option<Arc<Budget>>,
    metrics: Arc<Metrics>,
    reports: Throttle,
    entries: Mutex<Entries>,
    /// A connection has ended.
    ended: Notify,
}

/// The orders in which connections are asked to go. An entry may be out of date: it is corrected when it is its turn, so
/// that a request costs nothing here.
#[derive(Default)]
struct Entries {
    next_id: u64,
    /// Evicted connections that have not ended.
    ending: usize,
    all: HashMap<u64, Entry>,
    /// Without a verified request, by age.
    unverified: BTreeSet<u64>,
    /// Without a verified request, by the end of the time for which they are protected.
    protected: BTreeSet<(Instant, u64)>,
    /// With a verified request, by the time since which they are idle.
    verified: BTreeSet<(Instant, u64)>,
}

struct Entry {
    state: Arc<ConnectionState>,
    order: Order,
}

/// The set that has an entry, and its key there.
#[derive(Clone, Copy)]
enum Order {
    Unverified,
    Protected(Instant),
    Verified(Instant),
}

/// Why no connection could be evicted, and when to try again if none ends before.
enum Full {
    TooManyEnding,
    UntilThen(Instant),
}

impl Entries {
    fn set_order(&mut self, id: u64, order: Order) {
        let Some(entry) = self.all.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.order, order);
        self.unlist(id, before);
        match order {
            Order::Unverified => self.unverified.insert(id),
            Order::Protected(until) => self.protected.insert((until, id)),
            Order::Verified(since) => self.verified.insert((since, id)),
        };
    }

    fn unlist(&mut self, id: u64, order: Order) {
        match order {
            Order::Unverified => self.unverified.remove(&id),
            Order::Protected(until) => self.protected.remove(&(until, id)),
            Order::Verified(since) => self.verified.remove(&(since, id)),
        };
    }

    /// Takes a connection out; false if it was evicted before.
    fn remove(&mut self, id: u64) -> bool {
        let Some(entry) = self.all.remove(&id) else {
            return false;
        };
        self.unlist(id, entry.order);
        true
    }

    fn insert(&mut self, budget: Option<Arc<Budget>>) -> Arc<ConnectionState> {
        let id = self.next_id;
        self.next_id += 1;
        let state = Arc::new(ConnectionState::new(id, budget));
        let entry = Entry {
            state: state.clone(),
            order: Order::Unverified,
        };
        self.all.insert(id, entry);
        self.unverified.insert(id);
        state
    }

    fn evicted(&mut self, id: u64) {
        self.remove(id);
        self.ending += 1;
    }

    /// Makes room for one connection.
    fn evict_one(&mut self, now: Instant) -> Result<(), Full> {
        while let Some(&(until, id)) = self.protected.first()
            && until <= now
        {
            self.set_order(id, Order::Unverified);
        }
        while let Some(&id) = self.unverified.first() {
            let order = match self.all[&id].state.evict_unverified(now) {
                Eviction::Evicted => {
                    self.evicted(id);
                    return Ok(());
                }
                Eviction::ProtectedUntil(until) => Order::Protected(until),
                Eviction::VerifiedIdle(since) => Order::Verified(since),
                Eviction::VerifiedBusy => Order::Verified(now),
            };
            self.set_order(id, order);
        }
        // Waiting for one of them costs a second at most, and closing a verified one a request perhaps.
        if let Some(&(until, _)) = self.protected.first() {
            return Err(Full::UntilThen(until));
        }
        for _ in 0..self.verified.len() {
            let Some(&(since, id)) = self.verified.first() else {
                break;
            };
            match self.all[&id].state.evict_idle(since) {
                Eviction::Evicted => {
                    self.evicted(id);
                    return Ok(());
                }
                Eviction::VerifiedIdle(since) => self.set_order(id, Order::Verified(since)),
                // Once it is idle, it is so since a later time than now.
                _ => self.set_order(id, Order::Verified(now)),
            }
        }
        Err(Full::UntilThen(now + ALL_BUSY_INTERVAL))
    }
}

impl Table {
    pub(super) fn new(limits: &ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        let limit = limits.connections;
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics.connections_limit.set(limit as f64);
        Self {
            limit,
            max_ending: (limit / 8).clamp(1, MAX_ENDING),
            evicts: limits.wants_signatures,
            budget: limits.wants_signatures.then(|| budget(limits, &metrics)),
            metrics,
            reports: Throttle::new(3),
            entries: Mutex::default(),
            ended: Notify::new(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, and makes one where that is possible.
    pub(super) async fn admit(self: &Arc<Self>) -> Place {
        loop {
            let full = match self.try_admit() {
                Ok(place) => return place,
                Err(full) => full,
            };
            let later = async {
                match full {
                    Full::TooManyEnding => std::future::pending().await,
                    Full::UntilThen(then) => tokio::time::sleep_until(then.into()).await,
                }
            };
            tokio::select! {
                () = self.ended.notified() => {}
                () = later => {}
            }
        }
    }

    fn try_admit(self: &Arc<Self>) -> Result<Place, Full> {
        let mut entries = self.entries();
        if entries.all.len() >= self.limit {
            let made = if self.evicts && entries.ending < self.max_ending {
                entries.evict_one(Instant::now())
            } else {
                Err(Full::TooManyEnding)
            };
            self.report(made.is_ok());
            made?;
        }
        let state = entries.insert(self.budget.clone());
        self.count(&entries);
        Ok(Place {
            state,
            table: self.clone(),
        })
    }

    fn report(&self, is_evicted: bool) {
        if is_evicted {
            self.metrics.connections_evicted.increment(1);
        }
        if let Some(suppressed) = self.reports.pass() {
            let limit = self.limit;
            if is_evicted {
                tracing::warn!(
                    limit,
                    suppressed,
                    "connection limit reached: one without a verified request, or an idle one, was closed for a new one"
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

    fn count(&self, entries: &Entries) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.metrics.connections.set(entries.all.len() as f64);
    }

    fn end(&self, id: u64) {
        let mut entries = self.entries();
        if !entries.remove(id) {
            entries.ending -= 1;
        }
        self.count(&entries);
        drop(entries);
        self.ended.notify_one();
    }

    /// Tells all connections to end after what is under way, and waits until they have.
    pub(super) async fn shut_down(&self) {
        for entry in self.entries().all.values() {
            entry.state.shut_down();
        }
        loop {
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

/// Budget that counts and reports what it drops.
fn budget(limits: &ConnectionLimits, metrics: &Arc<Metrics>) -> Arc<Budget> {
    let (limit, metrics) = (limits.unverified_bytes, metrics.clone());
    let reports = Throttle::new(3);
    Arc::new(Budget::new(limit, move |dropped| {
        metrics.unverified_dropped.increment(dropped as u64);
        if let Some(suppressed) = reports.pass() {
            tracing::warn!(
                limit,
                dropped,
                suppressed,
                "limit of unverified bytes reached (server.unverified_bytes): the slowest requests were dropped"
            );
        }
    }))
}

/// Place of one connection in the table, given back when it is dropped.
pub(super) struct Place {
    state: Arc<ConnectionState>,
    table: Arc<Table>,
}

impl Place {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.end(self.state.id());
    }
}
