//! The queue of events in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::store::PostgresStore;
use crate::store::events::{ClaimedEvents, EventStats, Events, ExpiredEvents};
use crate::store::future::StoreFuture;
use crate::store::shared::event_queue;

impl PostgresStore {
    /// Returns whether changes are recorded as events.
    pub(super) fn records(&self) -> bool {
        // Relaxed: the flag publishes no other data.
        self.records_events.load(Ordering::Relaxed)
    }
}

impl Events for PostgresStore {
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
        let (me, position) = (self.owner, Arc::new((after.to_owned(), running)));
        self.run_claiming(move |db| {
            let position = position.clone();
            Box::pin(async move {
                event_queue::claim_events(db, me, &position.0, limit, &position.1, now).await
            })
        })
    }

    fn delete_event(&self, id: i64) -> StoreFuture<'_, ()> {
        self.run(move |db| Box::pin(event_queue::delete_event(db, id)))
    }

    fn retry_event(&self, id: i64, not_before: Timestamp) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.run(move |db| Box::pin(event_queue::retry_event(db, me, id, not_before)))
    }

    fn expire_events(
        &self,
        created_before: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'_, ExpiredEvents> {
        self.write(move |db| Box::pin(event_queue::expire_events(db, created_before, now)))
    }

    fn event_stats(&self) -> StoreFuture<'_, EventStats> {
        self.run(|db| Box::pin(event_queue::event_stats(db)))
    }
}
