//! The SQLite store: its connections, and how it is opened and closed.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::runtime::Handle;

use super::checkpoint::Checkpointer;
use super::database::ready;
use super::ownership::Ownership;
use super::presence::Presence;
use super::readers::Readers;
use super::schema::DatabaseFile;
use super::writer::Writer;
use super::{busy_handler, check, claims, file_path};
use crate::store::access::Access;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::future::StoreFuture;
use crate::store::handle::StoreHandle;
use crate::store::media::LinkSigningKey;
use crate::store::owner;
use crate::store::shared::media;
use crate::store::store_trait::{OPERATION_TIMEOUT, Store};

/// Time limit of an operation in memory.
// Without a disk and without locks of other processes, an operation is slow only on a busy machine. In tests a short
// limit would make such a machine respond with 503.
const MEMORY_OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of connections for the reads of messages, commands and health checks.
const READERS: usize = 4;
/// Maximum number of connections for files behind links.
// A pool of their own: downloads of large files must not delay the reads of messages.
const MEDIA_READERS: usize = 2;

/// Store in an SQLite file, or in memory.
///
/// ```no_run
/// use replyhook::App;
/// use replyhook::store::sqlite::SqliteStore;
///
/// # fn build() -> Result<App, replyhook::AppError> {
/// let app = App::builder().store(SqliteStore::file("/var/lib/bot/replyhook.db")).build()?;
/// # Ok(app) }
/// ```
pub struct SqliteStore {
    /// `None` for a store in memory.
    path: Option<PathBuf>,
    /// ID of this process in its claims.
    pub(super) owner: i64,
    /// True if changes are recorded as events.
    pub(super) records_events: AtomicBool,
    open: OnceLock<OpenSqlite>,
}

pub(super) struct OpenSqlite {
    /// True for a server.
    is_owned: bool,
    // Fields are dropped in this order. The writer joins its thread, and with it closes the connection that writes.
    writer: Writer,
    readers: Readers,
    media_readers: Readers,
    database: DatabaseFile,
    pub(super) link_signing_key: LinkSigningKey,
    // Last, so that the file is unlocked after its connections are closed. Until then no other server can open it.
    _ownership: Option<Ownership>,
}

impl SqliteStore {
    /// Creates a store in a file, which need not exist yet.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Some(path.into()))
    }

    /// Creates a store in memory, which is lost when the process ends.
    pub fn memory() -> Self {
        Self::at(None)
    }

    fn at(path: Option<PathBuf>) -> Self {
        Self {
            path,
            owner: owner::new_owner(),
            records_events: AtomicBool::new(false),
            open: OnceLock::new(),
        }
    }

    pub(super) fn opened(&self) -> Result<&OpenSqlite, StoreError> {
        self.open
            .get()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotOpen))
    }

    /// Runs `work` in a transaction of the writer thread, and returns once the transaction is durable.
    pub(super) fn write<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(async move { self.opened()?.writer.write(work).await })
    }

    /// Runs `work` on a read-only connection, on a blocking thread.
    pub(super) fn read<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.read_from(|open| &open.readers, work)
    }

    /// Runs `work` on a read-only connection for files behind links.
    pub(super) fn read_media<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.read_from(|open| &open.media_readers, work)
    }

    fn read_from<T, F>(&self, readers: fn(&OpenSqlite) -> &Readers, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(async move {
            let open = self.opened()?;
            // A second connection in memory would be another, empty database.
            if self.path.is_none() {
                return open.writer.write(work).await;
            }
            readers(open).read(work).await
        })
    }
}

impl Store for SqliteStore {
    fn open(&self, access: Access) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let database = DatabaseFile {
                // Resolved once, so that all connections use one name and so one write-ahead log.
                path: self.path.as_deref().map(file_path::followed),
                wait_for_lock: match access {
                    // Seconds. Less than `OPERATION_TIMEOUT`, so that a caller gets SQLite's error instead of a
                    // timeout.
                    Access::Owner => busy_handler::wait::<1>,
                    Access::Operator | Access::Migrate => busy_handler::wait::<10>,
                },
            };
            let opened = tokio::task::spawn_blocking(move || {
                // Before the first connection: a server without the lock must not migrate the schema, and the lock
                // creates the file, which the connections do not.
                let ownership = match (&database.path, access) {
                    (Some(path), Access::Owner | Access::Migrate) => Some(Ownership::take(path)?),
                    _ => None,
                };
                let mut db = database.open(access)?;
                let link_signing_key = ready(media::link_signing_key(&mut &db))?;
                // After `open`: only then the write-ahead log exists, whose identity is checked as well.
                let presence = match ownership {
                    Some(_) => Presence::of(&database)?,
                    None => None,
                };
                let unavailable =
                    |error| StoreError::with_source(StoreErrorKind::Unavailable, error);
                // Only a server needs the thread: in a command nothing else waits for a commit. Memory has no
                // write-ahead log.
                let checkpointer = match (&database.path, access) {
                    (Some(_), Access::Owner) => {
                        let checkpointer =
                            Checkpointer::start(database.clone()).map_err(unavailable)?;
                        checkpointer.attach(&mut db)?;
                        Some(checkpointer)
                    }
                    _ => None,
                };
                let runtime = Handle::current();
                let writer = Writer::start(db, database.clone(), presence, checkpointer, runtime)
                    .map_err(unavailable)?;
                Ok::<_, StoreError>(OpenSqlite {
                    is_owned: access == Access::Owner,
                    writer,
                    readers: Readers::new(database.clone(), READERS),
                    media_readers: Readers::new(database.clone(), MEDIA_READERS),
                    database,
                    link_signing_key,
                    _ownership: ownership,
                })
            });
            // A `JoinError`: the closure has panicked.
            let open = opened
                .await
                .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))??;
            self.open
                .set(open)
                .map_err(|_| StoreError::new(StoreErrorKind::Internal))
        })
    }

    fn failed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.open.get() {
                Some(open) => open.writer.wait_for_disk_failure().await,
                None => std::future::pending().await,
            }
        })
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.write(move |db| check::check(db, me))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let owner = self.owner;
        Box::pin(async move {
            self.write(move |db| claims::release_claims(db, owner))
                .await?;
            let open = self.opened()?;
            // A command leaves the log to the server, which still writes to it.
            if open.is_owned
                && let Err(error) = open.truncate_log().await
            {
                // Nothing is lost: SQLite reads the log when the file is opened again.
                tracing::info!(
                    "could not empty the write-ahead log on shutdown; a copy of the database needs its -wal file: {error}"
                );
            }
            Ok(())
        })
    }

    fn operation_timeout(&self) -> Duration {
        match &self.path {
            Some(_) => OPERATION_TIMEOUT,
            None => MEMORY_OPERATION_TIMEOUT,
        }
    }
}

impl OpenSqlite {
    /// Copies the write-ahead log into the database and empties it, so that it contains no deleted data.
    pub(super) async fn truncate_log(&self) -> Result<(), StoreError> {
        if self.database.path.is_none() {
            return Ok(());
        }
        let database = self.database.clone();
        // TRUNCATE waits for readers up to the busy timeout, so it runs on a blocking thread.
        let truncated = tokio::task::spawn_blocking(move || {
            let db = database.connect()?;
            let busy: bool =
                db.pragma_update_and_check(None, "wal_checkpoint", "truncate", |row| row.get(0))?;
            if busy {
                return Err(StoreError::with_source(
                    StoreErrorKind::Unavailable,
                    "the write-ahead log still has deleted data, because a process is reading it; repeat the command",
                ));
            }
            Ok(())
        });
        truncated
            .await
            .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))?
    }
}

impl From<SqliteStore> for StoreHandle {
    fn from(store: SqliteStore) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::signature::AuthTokenKind;
    use crate::store::{AcceptOutcome, Journal, NewInbound};

    fn new_inbound(number: i64) -> Arc<NewInbound> {
        let at = jiff::Timestamp::from_second(1_700_000_000 + number).unwrap();
        Arc::new(NewInbound {
            account: format!("AC{:032x}", 1).parse().unwrap(),
            sid: format!("SM{number:032x}").parse().unwrap(),
            sender: "whatsapp:+15550002222".into(),
            user: vec![format!("whatsapp:+1555{number:07}").into()],
            service: None,
            auth_token: AuthTokenKind::Primary,
            params: format!("Body={}", "x".repeat(1000)),
            consent: None,
            max_attempts: 3,
            retry_after_crash: true,
            final_response: String::new(),
            received_at: at,
        })
    }

    #[tokio::test]
    async fn media_reads_are_limited_without_delaying_others() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::sync::{Condvar, Mutex};

        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::file(folder.path().join("a.db")));
        store.open(Access::Owner).await.unwrap();
        // SeqCst for both counters: one order of all changes, so that `most` misses no overlap of two reads.
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let reads: Vec<_> = (0..50)
            .map(|_| {
                let (store, running, most) = (store.clone(), running.clone(), most.clone());
                let gate = gate.clone();
                tokio::spawn(async move {
                    let read = store.read_media(move |_| {
                        most.fetch_max(
                            running.fetch_add(1, Ordering::SeqCst) + 1,
                            Ordering::SeqCst,
                        );
                        let (open, opened) = &*gate;
                        drop(
                            opened
                                .wait_while(open.lock().unwrap(), |open| !*open)
                                .unwrap(),
                        );
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    });
                    read.await
                })
            })
            .collect();
        while running.load(Ordering::SeqCst) < MEDIA_READERS {
            tokio::task::yield_now().await;
        }
        // The other pool is not delayed, and a failed read gives its connection back.
        for number in 0..20 {
            let fails = number % 2 == 0;
            let read = store.read(move |db| {
                let found: i64 =
                    db.query_row("SELECT count(*) FROM inbound", [], |row| row.get(0))?;
                if fails {
                    return Err(StoreError::new(StoreErrorKind::Corrupt));
                }
                Ok(found)
            });
            assert_eq!(read.await.is_err(), fails);
        }
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        for read in reads {
            read.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), MEDIA_READERS);
    }

    // `max_page_count` makes SQLite report a full disk. Filling a real one needs root.
    #[tokio::test]
    async fn full_store_recovers_once_space_returns() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::file(folder.path().join("a.db"));
        store.open(Access::Owner).await.unwrap();
        let limit = async |pages: i64| {
            let limit = store.write(move |db| {
                db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
                Ok(())
            });
            limit.await.unwrap();
        };
        limit(100).await;
        let mut accepted_count = 0;
        let full = loop {
            match store.accept(new_inbound(accepted_count)).await {
                Ok(_) => accepted_count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), StoreErrorKind::Full);
        limit(200).await;
        for number in 0..=accepted_count {
            let accepted = store.accept(new_inbound(number)).await.unwrap();
            let is_new = matches!(accepted, AcceptOutcome::Claimed(_));
            assert_eq!(is_new, number == accepted_count, "{number}: {accepted:?}");
        }
    }
}
