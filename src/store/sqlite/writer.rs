//! Writer: the only connection that writes, on a thread of its own.
//!
//! The thread runs all queued writes in one transaction, then those that were queued during its commit, and so on. A
//! single write does not wait for others, and under load writes share the cost of a commit. A failed write does not
//! fail the others of its transaction. The callers of one transaction are woken together, by one thread switch.

use std::panic::AssertUnwindSafe;
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, ffi};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::checkpoint::Checkpointer;
use super::error::store_error;
use super::presence::Presence;
use super::schema::DatabaseFile;
use crate::store::error::{StoreError, StoreErrorKind};

/// Maximum number of queued writes. A further one fails immediately.
const QUEUE_CAPACITY: usize = 4096;
/// Maximum number of writes in one transaction.
const MAX_BATCH: usize = 256;

/// Queued write. It may run more than once, and only the result of the last run is used.
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
        // Overwrites the result of a run whose transaction was rolled back.
        self.result = Some((self.work)(db)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result =
            outcome.and_then(|()| result.ok_or_else(|| StoreError::new(StoreErrorKind::Internal)));
        // Fails if the caller has stopped waiting, which changes nothing: the write is committed.
        let _ = reply.send(result);
    }
}

/// Handle of the writer thread.
pub(super) struct Writer {
    writes: mpsc::Sender<Box<dyn Write>>,
    /// True once the disk has failed.
    disk_failed: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. Callers are woken on `runtime`. Without a `checkpointer`, SQLite makes checkpoints in
    /// commits.
    pub(super) fn start(
        db: Connection,
        database: DatabaseFile,
        presence: Option<Presence>,
        checkpointer: Option<Checkpointer>,
        runtime: Handle,
    ) -> std::io::Result<Self> {
        let (writes, waiting) = mpsc::channel(QUEUE_CAPACITY);
        let (disk_failed_sender, disk_failed) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("replyhook-store".to_owned())
            .spawn(move || {
                Thread {
                    db,
                    database,
                    runtime,
                    presence,
                    checkpointer,
                    io_failed: false,
                    disk_failed: disk_failed_sender,
                }
                .run(waiting);
            })?;
        Ok(Self {
            writes,
            disk_failed,
            thread: Some(thread),
        })
    }

    /// Completes when the disk has failed.
    pub(super) async fn wait_for_disk_failure(&self) {
        let mut disk_failed = self.disk_failed.clone();
        if disk_failed.wait_for(|failed| *failed).await.is_err() {
            // The thread has ended without a failure of the disk, because the store is closed.
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` in a transaction, and returns once the transaction is durable.
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
        // Not `send`, which would wait for a free slot in the queue: under overload a webhook must get its 503 in time.
        self.writes
            .try_send(Box::new(task))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::new(StoreErrorKind::Busy),
                mpsc::error::TrySendError::Closed(_) => StoreError::new(StoreErrorKind::NotOpen),
            })?;
        // The task was dropped without a result: the writer thread has panicked.
        result
            .await
            .unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Internal)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Dropping the sender closes the channel. The thread still runs the queued writes and then ends. It is joined
        // so that its connection is closed when `drop` returns.
        let (closed, _) = mpsc::channel(1);
        self.writes = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    db: Connection,
    database: DatabaseFile,
    runtime: Handle,
    /// `None` in memory, and for a command that does not own the file.
    presence: Option<Presence>,
    /// `None` in memory, and for a command.
    checkpointer: Option<Checkpointer>,
    /// True after an I/O error, until a transaction succeeds.
    io_failed: bool,
    /// True once the disk has failed. From then on every write fails.
    disk_failed: watch::Sender<bool>,
}

impl Thread {
    fn run(mut self, mut waiting: mpsc::Receiver<Box<dyn Write>>) {
        let mut batch = Vec::new();
        while waiting.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            // `commit` keeps the vector of a batch until all of its callers are woken.
            let next = Vec::with_capacity(batch.len());
            self.commit(std::mem::replace(&mut batch, next));
            // After the callers were woken, so that a checkpoint delays only later writes.
            if let Some(checkpointer) = &mut self.checkpointer {
                checkpointer.after_commit(&self.db);
            }
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Write>>) {
        match self.run_batch(&mut batch) {
            BatchOutcome::Done(outcome) => {
                // Sends the outcome when it is dropped: for a single write at the end of this block, on this thread.
                let notify = NotifyOnDrop { batch, outcome };
                // Several callers are woken from one task of the runtime. If this thread woke them one by one, each
                // would take the processor before the next is woken.
                if notify.batch.len() > 1 {
                    self.runtime.spawn(async move { drop(notify) });
                }
            }
            BatchOutcome::RetryIndividually => {
                // The transaction was rolled back, so each write runs again in a transaction of its own.
                for mut write in batch {
                    let outcome = self.transaction(|db| write.run(db));
                    write.done(outcome);
                }
            }
        }
    }

    /// Runs all writes of a batch in one transaction.
    fn run_batch(&mut self, batch: &mut [Box<dyn Write>]) -> BatchOutcome {
        // False after an error of a write and after a panic, and also if the transaction did not begin.
        let mut is_begun = false;
        let mut is_complete = false;
        let outcome = self.transaction(|db| {
            is_begun = true;
            batch.iter_mut().try_for_each(|write| write.run(db))?;
            is_complete = true;
            Ok(())
        });
        // A failed write must not fail the others. On a full disk all of them would fail.
        let retry = batch.len() > 1
            && is_begun
            && !is_complete
            && !matches!(&outcome, Err(error) if error.kind() == StoreErrorKind::Full);
        if retry {
            return BatchOutcome::RetryIndividually;
        }
        BatchOutcome::Done(outcome)
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if *self.disk_failed.borrow() {
            return Err(StoreError::new(StoreErrorKind::Disk));
        }
        // Check before too, although the check after the commit finds the same. A write that commits and still fails stays in
        // a file that is later moved back: a message would be claimed, but no task would handle or send it.
        let outcome = self
            .is_present()
            .and_then(|()| begin_and_commit(&self.db, work))
            // The file may be moved away between the first check and the commit. The commit is then in a file that the
            // next start does not open, so it must not be acknowledged.
            .and_then(|()| self.is_present());
        match &outcome {
            Ok(()) => self.io_failed = false,
            Err(error) => self.handle_error(error),
        }
        outcome
    }

    fn is_present(&self) -> Result<(), StoreError> {
        self.presence.as_ref().map_or(Ok(()), Presence::check)
    }

    /// Reopens the database after an I/O error. Marks the disk as failed after an fsync error or a second I/O error, or if
    /// the database cannot be reopened.
    fn handle_error(&mut self, error: &StoreError) {
        let Some(code) = io_error_code(error) else {
            return;
        };
        let is_second = std::mem::replace(&mut self.io_failed, true);
        // After a failed fsync the kernel may have dropped the written pages, and neither they nor the connection can be
        // trusted: a later commit could be acknowledged although the log before it is not on the disk.
        let is_fsync = FSYNC_ERRORS.contains(&code);
        if !is_second && !is_fsync {
            match self.reopen() {
                Ok(()) => return tracing::error!("disk I/O error: reopened the store"),
                Err(error) => tracing::error!(%error, "could not reopen the store"),
            }
        }
        tracing::error!(
            sqlite_code = code,
            "the disk has failed: nothing more is acknowledged"
        );
        self.disk_failed.send_replace(true);
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let mut db = self.database.connect()?;
        // The hook belongs to a connection. Without it SQLite would make checkpoints inside commits.
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.attach(&mut db)?;
        }
        self.db = db;
        Ok(())
    }
}

/// Errors of fsync(2), for files and directories.
const FSYNC_ERRORS: [i32; 2] = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC];

/// Writes of one transaction. Dropping it sends the outcome to their callers.
// On drop and not in a method: a runtime that has shut down drops a spawned task without running it.
struct NotifyOnDrop {
    batch: Vec<Box<dyn Write>>,
    outcome: Result<(), StoreError>,
}

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        for write in self.batch.drain(..) {
            write.done(shared(&self.outcome));
        }
    }
}

enum BatchOutcome {
    /// All writes have this outcome.
    Done(Result<(), StoreError>),
    /// One write failed, and the transaction was rolled back.
    RetryIndividually,
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
    // IMMEDIATE takes the write lock before the first read. A transaction that reads first and then writes fails
    // without waiting if a command has committed in between.
    run("BEGIN IMMEDIATE")?;
    // A panic of a write must not end the thread, which would reject every later write. Unwind safe: the transaction is
    // rolled back.
    let work = std::panic::catch_unwind(AssertUnwindSafe(|| work(db)));
    let outcome = work
        .unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Internal)))
        .and_then(|()| run("COMMIT"));
    // SQLite rolls back by itself after some errors, such as a full disk. Then nothing is left to roll back.
    if outcome.is_err() && !db.is_autocommit() {
        // If this fails too, the next BEGIN fails.
        let _ = run("ROLLBACK");
    }
    outcome
}

/// Returns SQLite's extended error code if the disk itself failed, rather than being full or locked.
fn io_error_code(error: &StoreError) -> Option<i32> {
    let error = std::error::Error::source(error)?.downcast_ref::<rusqlite::Error>()?;
    // These errors end a transaction before its commit, for example over a quota. It is rolled back and was not
    // acknowledged, so the connection is still good.
    let unwritten = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
    (error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
        .then(|| error.sqlite_extended_error_code())
        .flatten()
        .filter(|code| !unwritten.contains(code))
}

/// Copies the outcome of a batch for one of its writes.
fn shared(outcome: &Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            // A source cannot be cloned, so the copy has its text.
            let source = std::error::Error::source(error);
            let text = source.map_or_else(String::new, ToString::to_string);
            Err(StoreError::with_source(error.kind(), text))
        }
    }
}
