//! Pool of read-only connections, each opened when it is first needed and never closed while the store is open.
//!
//! SQLite keeps the descriptor of a closed connection open as long as another connection of the process has a lock on
//! the file. In WAL mode that is always the case, so each close would leak a descriptor.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema::DatabaseFile;
use crate::lock::IgnorePoison;
use crate::store::error::{StoreError, StoreErrorKind};

/// Pool of read-only connections.
pub(super) struct Readers {
    database: DatabaseFile,
    idle: Arc<Mutex<Vec<Connection>>>,
    // As many permits as connections, so that a read with a permit finds an idle connection or may open one.
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Creates a pool of up to `connections` connections, none of which is open yet.
    pub(super) fn new(database: DatabaseFile, connections: usize) -> Self {
        Self {
            database,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Runs `work` on a connection, on a blocking thread. If all connections are in use, the read waits without a
    /// thread.
    pub(super) async fn read<T, F>(&self, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::new(StoreErrorKind::NotOpen))?;
        let (database, idle) = (self.database.clone(), self.idle.clone());
        let read = tokio::task::spawn_blocking(move || {
            // Moved into the task: if the caller stops waiting, the permit stays in use as long as the thread and the
            // connection. Dropped at the end, after the connection is idle again.
            let _permit = permit;
            // The lock is held for a push or a pop only, never during `work`. So a poisoned lock is usable.
            let connection = idle.lock().ignore_poison().pop();
            let db = match connection {
                Some(db) => db,
                None => database.connect_to_read()?,
            };
            let result = work(&db);
            // After an error too: a read-only connection has no state beyond the end of its statement.
            idle.lock().ignore_poison().push(db);
            result
        });
        read.await
            .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))?
    }
}
