//! Connections that only read: a fixed number of them, each opened when it is first needed and then kept.
//!
//! They are not closed after a read: SQLite keeps the descriptor of a closed connection open for as long as another connection
//! of the process has a lock on the file, which in WAL mode is always. Each close would therefore leak a descriptor.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema::Place;
use crate::store::{StoreError, StoreErrorKind};

/// A pool of connections that only read.
pub(super) struct Readers {
    place: Place,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Creates a pool of at most so many connections, of which none is open yet.
    pub(super) fn new(place: Place, connections: usize) -> Self {
        Self {
            place,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Runs `work` on a connection, off the runtime's threads. Further reads wait without a thread until one is free.
    pub(super) async fn read<T, F>(&self, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::new(StoreErrorKind::NotOpen))?;
        let (place, idle) = (self.place.clone(), self.idle.clone());
        let read = tokio::task::spawn_blocking(move || {
            // Moved in: a caller that stops waiting does not make room for another thread. Dropped after the connection is back.
            let _permit = permit;
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let db = match taken {
                Some(db) => db,
                None => place.connect_to_read()?,
            };
            let result = work(&db);
            // Also after an error: a connection that only reads forgets what it has read with the end of its statement.
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            result
        });
        read.await
            .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))?
    }
}
