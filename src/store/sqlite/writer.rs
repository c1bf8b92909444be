//! The one connection that writes, on a thread of its own.
//!
//! Whatever waits when the last commit is through is one transaction: a lone write waits for nobody, and under load the
//! cost of a commit is shared. A write that fails does not fail its neighbours. Those who wait for a commit are woken
//! together, by one change of threads.

use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, ffi};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpointer;
use super::error::store_error;
use super::presence::Presence;
use super::schema::Place;
use crate::store::{StoreError, StoreErrorKind};

/// Writes that may wait; beyond them a caller is refused at once.
const WAITING: usize = 4096;
/// Writes of one transaction.
const BATCH: usize = 256;
/// `EX_IOERR` of sysexits.h.
const EXIT_IO: i32 = 74;

/// One write. It may run more than once, and only its last run counts.
trait Write: Send {
    fn run(&mut self, db: &Connection) -> Result<(), StoreError>;
    fn done(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, F> {
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write for Task<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, db: &Connection) -> Result<(), StoreError> {
        self.result = Some((self.work)(db)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result =
            outcome.and_then(|()| result.ok_or_else(|| StoreError::new(StoreErrorKind::Internal)));
        // Whoever asked may be gone.
        let _ = reply.send(result);
    }
}

/// Where writes are handed in.
pub(super) struct Writer {
    writes: mpsc::Sender<Box<dyn Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `runtime` is where writers are woken. Without a `checkpointer` SQLite makes checkpoints inside commits.
    pub(super) fn start(
        db: Connection,
        place: Place,
        presence: Option<Presence>,
        checkpointer: Option<Checkpointer>,
        runtime: Handle,
    ) -> std::io::Result<Self> {
        let (writes, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("replyhook-store".to_owned())
            .spawn(move || {
                Thread {
                    db,
                    place,
                    runtime,
                    presence,
                    checkpointer,
                    io_failed: false,
                }
                .run(waiting);
            })?;
        Ok(Self {
            writes,
            thread: Some(thread),
        })
    }

    /// Runs `work` in a transaction and returns once that is durable.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let task = Task {
            work,
            result: None,
            reply,
        };
        self.writes
            .try_send(Box::new(task))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::new(StoreErrorKind::Busy),
                mpsc::error::TrySendError::Closed(_) => StoreError::new(StoreErrorKind::NotOpen),
            })?;
        result
            .await
            .unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Internal)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closes the channel; what waits is still written.
        let (closed, _) = mpsc::channel(1);
        self.writes = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    db: Connection,
    place: Place,
    runtime: Handle,
    /// Of a server's file.
    presence: Option<Presence>,
    checkpointer: Option<Checkpointer>,
    /// The last commit ended in an I/O error.
    io_failed: bool,
}

impl Thread {
    fn run(mut self, mut waiting: mpsc::Receiver<Box<dyn Write>>) {
        let mut batch = Vec::new();
        while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
            let next = Vec::with_capacity(batch.len());
            self.commit(std::mem::replace(&mut batch, next));
            if let Some(checkpointer) = &mut self.checkpointer {
                checkpointer.after_commit(&self.db);
            }
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Write>>) {
        match self.together(&mut batch) {
            Together::Done(outcome) => {
                let told = Told { batch, outcome };
                // Woken one by one from here, each would take the processor before the next is told.
                if told.batch.len() > 1 {
                    self.runtime.spawn(async move { drop(told) });
                }
            }
            Together::OneFailed => {
                for mut write in batch {
                    let outcome = self.transaction(|db| write.run(db));
                    write.done(outcome);
                }
            }
        }
    }

    /// Tries all of them in one transaction.
    fn together(&mut self, batch: &mut [Box<dyn Write>]) -> Together {
        let mut failed = false;
        let outcome = self.transaction(|db| {
            batch
                .iter_mut()
                .try_for_each(|write| write.run(db))
                .inspect_err(|_| failed = true)
        });
        // Its neighbours can still do it, unless nobody can.
        let one = batch.len() > 1
            && failed
            && !matches!(&outcome, Err(error) if error.kind() == StoreErrorKind::Full);
        if one {
            return Together::OneFailed;
        }
        Together::Done(outcome)
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let outcome = self
            .is_present()
            .and_then(|()| begin_and_commit(&self.db, work))
            // What was committed to a file that is gone meanwhile is not kept.
            .and_then(|()| self.is_present());
        match &outcome {
            Ok(()) => self.io_failed = false,
            Err(error) if is_io(error) => self.io_failure(),
            Err(_) => {}
        }
        outcome
    }

    fn is_present(&self) -> Result<(), StoreError> {
        self.presence.as_ref().map_or(Ok(()), Presence::check)
    }

    /// After a failed fsync neither the connection nor the page cache can be trusted: a new connection gets one
    /// more try, and then the process has to end.
    fn io_failure(&mut self) {
        let again = std::mem::replace(&mut self.io_failed, true);
        let reopened = self.place.connect().and_then(|mut db| {
            if let Some(checkpointer) = &self.checkpointer {
                checkpointer.attach(&mut db)?;
            }
            Ok(db)
        });
        if let (false, Ok(db)) = (again, reopened) {
            tracing::error!("the disk under the store failed: the store was opened anew");
            self.db = db;
            return;
        }
        tracing::error!("the disk under the store failed again: ending, nothing more can be kept");
        std::process::exit(EXIT_IO);
    }
}

/// Writes of one transaction, whose outcome is told when this is dropped: so also where the runtime has ended.
struct Told {
    batch: Vec<Box<dyn Write>>,
    outcome: Result<(), StoreError>,
}

impl Drop for Told {
    fn drop(&mut self) {
        for write in self.batch.drain(..) {
            write.done(shared(&self.outcome));
        }
    }
}

enum Together {
    Done(Result<(), StoreError>),
    OneFailed,
}

fn begin_and_commit(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let run = |sql: &str| -> Result<(), StoreError> {
        db.prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(store_error)?;
        Ok(())
    };
    run("BEGIN IMMEDIATE")?;
    let outcome = work(db).and_then(|()| run("COMMIT"));
    if outcome.is_err() && !db.is_autocommit() {
        // Where this fails too, the next BEGIN tells.
        let _ = run("ROLLBACK");
    }
    outcome
}

/// Whether the disk itself failed, as opposed to being full or locked.
fn is_io(error: &StoreError) -> bool {
    let Some(error) = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<rusqlite::Error>())
    else {
        return false;
    };
    // What could not be written at all, as over a quota, is rolled back, and nobody was told that it is kept.
    let unwritten = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && error
            .sqlite_extended_error_code()
            .is_some_and(|code| !unwritten.contains(&code))
}

/// The outcome of a batch, for each of its writes.
fn shared(outcome: &Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            let source = std::error::Error::source(error);
            let words = source.map_or_else(String::new, ToString::to_string);
            Err(StoreError::with_source(error.kind(), words))
        }
    }
}
