//! The queue of events in SQLite.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::database::ready;
use super::store::SqliteStore;
use crate::store::events::{ClaimedEvents, EventStats, Events, ExpiredEvents};
use crate::store::future::StoreFuture;
use crate::store::shared::event_queue;

impl SqliteStore {
    /// Returns whether changes are recorded as events.
    pub(super) fn records(&self) -> bool {
        // Relaxed: the flag publishes no other data.
        self.records_events.load(Ordering::Relaxed)
    }
}

impl Events for SqliteStore {
    fn record_events(&self, is_on: bool) {
        self.records_events.store(is_on, Ordering::Relaxed);
    }

    fn claim_events(
        &self,
        after: &str,
        limit: usize,
        running: Vec<i64>,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedEvents> {
        let (me, after) = (self.owner, after.to_owned());
        self.write(move |mut db| {
            ready(event_queue::claim_events(
                &mut db, me, &after, limit, &running, now,
            ))
        })
    }

    fn delete_event(&self, id: i64) -> StoreFuture<'_, ()> {
        self.write(move |mut db| ready(event_queue::delete_event(&mut db, id)))
    }

    fn retry_event(&self, id: i64, not_before: Timestamp) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.write(move |mut db| ready(event_queue::retry_event(&mut db, me, id, not_before)))
    }

    fn expire_events(
        &self,
        created_before: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'_, ExpiredEvents> {
        self.write(move |mut db| ready(event_queue::expire_events(&mut db, created_before, now)))
    }

    fn event_stats(&self) -> StoreFuture<'_, EventStats> {
        self.read(|mut db| ready(event_queue::event_stats(&mut db)))
    }
}
