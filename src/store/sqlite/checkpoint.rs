//! Checkpoints of the write-ahead log, on a thread of their own.
//!
//! A checkpoint copies the pages of the log into the database and syncs it. By default SQLite makes it inside the
//! commit that finds the log too long, and every other write waits for it. That takes some milliseconds if the pages
//! lie close together. It takes up to a second if they are spread over a large database, as the pages of expired rows
//! are. This thread copies them while commits continue.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode};

use super::error::store_error;
use super::schema::DatabaseFile;
use crate::store::error::StoreError;

/// Number of new frames in the log after which the thread copies them. A frame is a page of 4 KiB.
// Few, so that the disk never gets a long burst of writes. The sync of a commit would wait behind all of it.
const MIN_NEW_FRAMES: i32 = 250;
/// Minimum time between two requests.
// Under load the frames of a tenth of a second contain the same pages many times, and each page is copied once.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Length of the log, in frames, from which the writer restarts it at its first frame.
// Long, because the writer itself has to copy the last frames before a restart.
const RESTART_LENGTH: i32 = 8_000;
/// Length of the log, in frames, at which the writer waits for the thread.
// It bounds the log. The writer cannot help in the meantime: the thread's checkpoint holds SQLite's lock for
// checkpoints.
const MAX_LENGTH: i32 = 4 * RESTART_LENGTH;

/// Handle of the thread, which the writer thread uses.
pub(super) struct Checkpointer {
    /// Length of the log after the last commit, in frames.
    // Relaxed: the hook stores it and `after_commit` loads it on one thread. It is atomic only because a hook must be
    // `Send`.
    frames: Arc<AtomicI32>,
    /// Length of the log at the last request, in frames.
    requested_length: i32,
    /// Time of the last request.
    last_request: Instant,
    /// True from a request until the writer has noticed the end of the checkpoint.
    is_copying: bool,
    /// `None` only in `drop`.
    requests: Option<SyncSender<()>>,
    /// One item for each request, after its checkpoint. Closed if the thread has panicked.
    copied: Receiver<()>,
    has_failed: bool,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(database: DatabaseFile) -> std::io::Result<Self> {
        // One request is enough: the writer makes the next one only after the checkpoint has ended.
        let (requests, received) = mpsc::sync_channel(1);
        let (done, copied) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("replyhook-checkpoint".to_owned())
            .spawn(move || run(&database, &received, &done))?;
        Ok(Self {
            frames: Arc::default(),
            requested_length: 0,
            last_request: Instant::now(),
            is_copying: false,
            requests: Some(requests),
            copied,
            has_failed: false,
            thread: Some(thread),
        })
    }

    /// Makes the writer's connection report the length of its log. SQLite then makes no checkpoints in commits.
    pub(super) fn attach(&self, db: &mut Connection) -> Result<(), StoreError> {
        let frames = self.frames.clone();
        // SQLite's automatic checkpoints are such a hook too, so this one replaces them.
        db.wal_hook(Some(move |_: &mut Wal, length| {
            frames.store(length, Ordering::Relaxed);
            Ok(())
        }))
        .map_err(store_error)
    }

    /// Requests a checkpoint if one is due, or copies the remaining frames after the thread's checkpoint.
    ///
    /// The writer calls it between two transactions, after it has sent the outcome of the first.
    pub(super) fn after_commit(&mut self, db: &Connection) {
        let frames = self.frames.load(Ordering::Relaxed);
        if self.is_copying {
            let is_pending = if frames < MAX_LENGTH {
                self.copied.try_recv() == Err(TryRecvError::Empty)
            } else {
                // An error means that the thread has panicked, so nothing is pending either.
                let _ = self.copied.recv();
                false
            };
            if is_pending {
                return;
            }
            self.is_copying = false;
            // The thread cannot reach the end of a log that grows while it copies. SQLite starts the log from the
            // beginning only if all of it is copied. On this thread no commit of this process comes in between, and few
            // frames are left.
            if frames >= RESTART_LENGTH {
                copy(db, &mut self.has_failed);
            }
        }
        // SQLite has restarted the log.
        if frames < self.requested_length {
            self.requested_length = 0;
        }
        // A log of `RESTART_LENGTH` is not subject to the interval: the sooner the thread has copied it, the sooner the
        // writer can restart it.
        let is_due = frames - self.requested_length >= MIN_NEW_FRAMES
            && (self.last_request.elapsed() >= MIN_INTERVAL || frames >= RESTART_LENGTH);
        if !is_due {
            return;
        }
        self.requested_length = frames;
        self.last_request = Instant::now();
        // `try_send` never blocks. It fails if the thread has panicked, and then the writer copies.
        let requested = self.requests.as_ref().map(|requests| requests.try_send(()));
        self.is_copying = matches!(requested, Some(Ok(())));
        if !self.is_copying {
            copy(db, &mut self.has_failed);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        // Dropping the sender ends the thread's loop. The thread is joined so that its connection is closed before the
        // file is unlocked.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(database: &DatabaseFile, requests: &Receiver<()>, done: &SyncSender<()>) {
    // Opened for the first checkpoint and then reused, so a short run opens no second connection.
    let mut connection = None;
    let mut has_failed = false;
    for () in requests {
        if connection.is_none() {
            connection = database
                .connect()
                .inspect_err(|error| {
                    tracing::warn!(
                        "could not open the store for a checkpoint; the writer thread will run it instead: {error}"
                    );
                })
                .ok();
        }
        if let Some(db) = &connection {
            copy(db, &mut has_failed);
        }
        // Sent after a failure too: the writer copies the frames itself once the log has `RESTART_LENGTH`. An error
        // means that the writer has ended.
        let _ = done.send(());
    }
}

/// Copies the frames up to the oldest reader's snapshot into the database. `has_failed` limits the log to one line
/// until a checkpoint works again.
fn copy(db: &Connection, has_failed: &mut bool) {
    // PASSIVE waits neither for readers nor for the writer.
    let result = db.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE);
    // Busy: a command makes a checkpoint of the same log.
    let failure = result
        .err()
        .filter(|error| error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy));
    if let Some(error) = &failure
        && !*has_failed
    {
        // Nothing is lost: frames that were not copied stay in the log, which is synced at every commit.
        tracing::warn!("checkpoint failed; it is repeated after a later commit: {error}");
    }
    *has_failed = failure.is_some();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    // The log would grow without bound if the writer did not wait.
    #[test]
    fn writer_waits_for_thread_at_maximum_length() {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("a.db")).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)")
            .unwrap();
        let (requests, received) = mpsc::sync_channel(1);
        let (done, copied) = mpsc::sync_channel(1);
        let mut checkpointer = Checkpointer {
            frames: Arc::new(AtomicI32::new(MAX_LENGTH - 1)),
            requested_length: MAX_LENGTH - 1,
            last_request: Instant::now(),
            is_copying: true,
            requests: Some(requests),
            copied,
            has_failed: false,
            thread: None,
        };
        // Below the maximum: the writer goes on, and the checkpoint stays pending.
        checkpointer.after_commit(&db);
        assert!(checkpointer.is_copying);
        checkpointer.frames.store(MAX_LENGTH, Ordering::Relaxed);
        let has_ended = Arc::<AtomicBool>::default();
        let thread = std::thread::spawn({
            let has_ended = has_ended.clone();
            move || {
                // Release, for the Acquire below: the store comes before the response that the writer waits for.
                has_ended.store(true, Ordering::Release);
                done.send(()).unwrap();
            }
        });
        checkpointer.after_commit(&db);
        assert!(has_ended.load(Ordering::Acquire), "the writer did not wait");
        assert!(!checkpointer.is_copying);
        thread.join().unwrap();
        // The thread has ended: the writer makes the next checkpoint itself.
        drop(received);
        checkpointer.requested_length = 0;
        checkpointer.after_commit(&db);
        assert!(!checkpointer.is_copying);
    }
}
