//! The store in an SQLite file: one machine, one writer, WAL with `synchronous=FULL`.
//!
//! Only one server owns a file: an operating-system lock on the file itself, which dies with the process, says so. Whatever
//! an earlier process claimed is therefore free the moment the next one starts. Operators' commands work beside it.
//! A file that is deleted or moved away under a server takes no writes until it is back.

mod answer;
mod backlog;
mod check;
mod checkpoint;
mod conversations;
mod error;
mod handover;
mod journal;
mod media;
mod news;
mod operator;
mod outbox;
mod ownership;
mod presence;
mod readers;
mod retention;
mod schema;
mod submission;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::Handle;

use self::checkpoint::Checkpointer;
use self::ownership::Ownership;
pub use self::ownership::file_warnings;
use self::presence::Presence;
use self::readers::Readers;
use self::schema::Place;
use self::writer::Writer;
use super::{Access, LinkSigningKey, Outcome, Store, StoreError, StoreErrorKind};
use crate::store::rows;

/// How long a server waits for a lock: less than a message may take to be accepted.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a command does.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(10);

/// How long a step may take in memory: no disk and nobody else's lock is in its way, only a machine that is busy.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);
/// Connections for the reads of messages, commands and health checks.
const READERS: usize = 4;
/// Connections for files behind links, which must not make the others wait.
const MEDIA_READERS: usize = 2;

/// The store in an SQLite file, or in memory.
///
/// ```no_run
/// use replyhook::App;
/// use replyhook::store::sqlite::SqliteStore;
///
/// # fn build() -> Result<App, replyhook::StartError> {
/// let app = App::builder().store(SqliteStore::file("/var/lib/bot/replyhook.db")).build()?;
/// # Ok(app) }
/// ```
pub struct SqliteStore {
    path: Option<PathBuf>,
    owner: i64,
    open: OnceLock<Open>,
}

struct Open {
    /// Whether it is this process's.
    is_owned: bool,
    writer: Writer,
    readers: Readers,
    media_readers: Readers,
    place: Place,
    link_signing_key: LinkSigningKey,
    /// Dropped last: the file is unlocked once no connection is open.
    _ownership: Option<Ownership>,
}

impl SqliteStore {
    /// A store in a file, which need not exist yet.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Some(path.into()))
    }

    /// A store that is gone with the process.
    pub fn memory() -> Self {
        Self::at(None)
    }

    fn at(path: Option<PathBuf>) -> Self {
        Self {
            path,
            owner: rows::new_owner(),
            open: OnceLock::new(),
        }
    }

    fn opened(&self) -> Result<&Open, StoreError> {
        self.open
            .get()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotOpen))
    }

    /// Runs `work` in the writer's transaction; returns once it is durable.
    fn write<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(async move { self.opened()?.writer.write(work).await })
    }

    /// Runs `work` on a connection that only reads, off the runtime's threads.
    fn read<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.read_from(|open| &open.readers, work)
    }

    /// The same for files behind links.
    fn read_media<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.read_from(|open| &open.media_readers, work)
    }

    fn read_from<T, F>(&self, readers: fn(&Open) -> &Readers, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(async move {
            let open = self.opened()?;
            if self.path.is_none() {
                return open.writer.write(work).await;
            }
            readers(open).read(work).await
        })
    }
}

impl Store for SqliteStore {
    fn open(&self, access: Access) -> Outcome<'_, ()> {
        Box::pin(async move {
            let place = Place {
                path: self.path.as_deref().map(presence::followed),
                patience: match access {
                    Access::Owner => SERVER_PATIENCE,
                    Access::Operator | Access::Migrate => OPERATOR_PATIENCE,
                },
            };
            let opened = tokio::task::spawn_blocking(move || {
                let ownership = match (&place.path, access) {
                    (Some(path), Access::Owner | Access::Migrate) => Some(Ownership::take(path)?),
                    _ => None,
                };
                let mut db = place.open(access)?;
                let link_signing_key = media::link_signing_key(&db)?;
                let presence = match ownership {
                    Some(_) => Presence::of(&place)?,
                    None => None,
                };
                let unavailable =
                    |error| StoreError::with_source(StoreErrorKind::Unavailable, error);
                // Commands write too little for a thread of their own, and memory has no log.
                let checkpointer = match (&place.path, access) {
                    (Some(_), Access::Owner) => {
                        let checkpointer =
                            Checkpointer::start(place.clone()).map_err(unavailable)?;
                        checkpointer.attach(&mut db)?;
                        Some(checkpointer)
                    }
                    _ => None,
                };
                let runtime = Handle::current();
                let writer = Writer::start(db, place.clone(), presence, checkpointer, runtime)
                    .map_err(unavailable)?;
                Ok::<_, StoreError>(Open {
                    is_owned: access == Access::Owner,
                    writer,
                    readers: Readers::new(place.clone(), READERS),
                    media_readers: Readers::new(place.clone(), MEDIA_READERS),
                    place,
                    link_signing_key,
                    _ownership: ownership,
                })
            });
            let open = opened
                .await
                .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))??;
            self.open
                .set(open)
                .map_err(|_| StoreError::new(StoreErrorKind::Internal))
        })
    }

    fn check(&self) -> Outcome<'_, ()> {
        let me = self.owner;
        self.write(move |db| check::check(db, me))
    }

    fn close(&self) -> Outcome<'_, ()> {
        let owner = self.owner;
        Box::pin(async move {
            self.write(move |db| journal::close(db, owner)).await?;
            let open = self.opened()?;
            if open.is_owned
                && let Err(error) = open.truncate_log().await
            {
                tracing::info!(
                    "the database is not in one file, but in its write-ahead log too: {error}"
                );
            }
            Ok(())
        })
    }

    fn patience(&self) -> Duration {
        match &self.path {
            Some(_) => super::PATIENCE,
            None => MEMORY_PATIENCE,
        }
    }
}

impl Open {
    /// Folds the write-ahead log into the database and empties it, so that nothing deleted is left in it.
    async fn truncate_log(&self) -> Result<(), StoreError> {
        if self.place.path.is_none() {
            return Ok(());
        }
        let place = self.place.clone();
        let truncated = tokio::task::spawn_blocking(move || {
            let db = place.connect()?;
            let busy: bool =
                db.pragma_update_and_check(None, "wal_checkpoint", "truncate", |row| row.get(0))?;
            if busy {
                return Err(StoreError::with_source(
                    StoreErrorKind::Unavailable,
                    "what was deleted is still in its write-ahead log, which somebody reads: do it again",
                ));
            }
            Ok(())
        });
        truncated
            .await
            .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error))?
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
    use crate::signature::TokenSlot;
    use crate::store::{Acceptance, Arrival, Journal};

    fn arrival(number: i64) -> Arc<Arrival> {
        let at = jiff::Timestamp::from_second(1_700_000_000 + number).unwrap();
        Arc::new(Arrival {
            account: format!("AC{:032x}", 1).parse().unwrap(),
            sid: format!("SM{number:032x}").parse().unwrap(),
            us: "whatsapp:+15550002222".into(),
            user: vec![format!("whatsapp:+1555{number:07}").into()],
            service: None,
            slot: TokenSlot::Primary,
            params: format!("Body={}", "x".repeat(1000)),
            consent: None,
            attempts: 3,
            retry_crashed: true,
            last_answer: String::new(),
            at,
        })
    }

    #[tokio::test]
    async fn reads_of_media_are_few_and_do_not_delay_others() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::sync::{Condvar, Mutex};

        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::file(folder.path().join("a.db")));
        store.open(Access::Owner).await.unwrap();
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
        // Others go on, also after one that failed.
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

    /// SQLite's own word for a full disk, which only root can make with a real one.
    #[tokio::test]
    async fn a_store_that_is_full_says_so_keeps_what_it_has_and_goes_on_once_there_is_room() {
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
        let mut kept = 0;
        let full = loop {
            match store.accept(arrival(kept)).await {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), StoreErrorKind::Full);
        limit(200).await;
        for number in 0..=kept {
            let accepted = store.accept(arrival(number)).await.unwrap();
            let is_new = matches!(accepted, Acceptance::New(_));
            assert_eq!(is_new, number == kept, "{number}: {accepted:?}");
        }
    }
}
