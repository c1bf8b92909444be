//! Checkpoints of the write-ahead log, on a thread of their own.
//!
//! A checkpoint copies the pages of the log into the database and syncs it. By default SQLite makes it inside the
//! commit that finds the log too long, and every other write waits for it. That takes some milliseconds if the pages
//! lie close together. It takes up to a second if they are spread over a large database, as the pages of expired rows
//! are. This thread copies them while commits continue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::error::store_error;
use super::schema::Place;
use crate::store::StoreError;

/// Length of the log, in frames, from which a checkpoint is due. A frame is a page of 4 KiB.
const DUE: i32 = 8_000;
/// Length of the log, in frames, from which the writer makes the checkpoint itself.
// So the log stays bounded even if the thread does not keep up.
const OVERDUE: i32 = 4 * DUE;

/// Handle of the thread, which the writer thread uses.
pub(super) struct Checkpointer {
    /// Length of the log after the last commit, in frames.
    // Relaxed: the hook stores it and `after_commit` loads it on one thread. It is atomic only because a hook must be
    // `Send`.
    frames: Arc<AtomicI32>,
    /// True once the thread has finished a checkpoint that the writer has not noticed yet.
    // Relaxed: no data is passed with it. The index in SQLite's shared memory records which frames are copied.
    copied: Arc<AtomicBool>,
    /// True from the request until the writer has noticed the end of the checkpoint.
    is_copying: bool,
    /// `None` only in `drop`.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(place: Place) -> std::io::Result<Self> {
        // One request is enough: the writer makes the next one only after the checkpoint has ended.
        let (requests, received) = mpsc::sync_channel(1);
        let copied = Arc::<AtomicBool>::default();
        let thread = std::thread::Builder::new()
            .name("replyhook-checkpoint".to_owned())
            .spawn({
                let copied = copied.clone();
                move || run(&place, &received, &copied)
            })?;
        Ok(Self {
            frames: Arc::default(),
            copied,
            is_copying: false,
            requests: Some(requests),
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
        if self.copied.swap(false, Ordering::Relaxed) {
            self.is_copying = false;
            // The thread cannot reach the end of a log that grows while it copies. SQLite starts the log from the
            // beginning only if all of it is copied. On this thread no commit of this process comes in between, and few
            // frames are left.
            copy(db);
            return;
        }
        let frames = self.frames.load(Ordering::Relaxed);
        if frames < DUE {
            return;
        }
        if !self.is_copying {
            // `try_send` never blocks. It fails if the thread has panicked, and then the writer copies below.
            let requested = self.requests.as_ref().map(|requests| requests.try_send(()));
            self.is_copying = matches!(requested, Some(Ok(())));
        }
        if frames >= OVERDUE || !self.is_copying {
            copy(db);
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

fn run(place: &Place, requests: &Receiver<()>, copied: &AtomicBool) {
    // Opened for the first checkpoint and then reused. The log of a small store never gets long enough.
    let mut connection = None;
    for () in requests {
        if connection.is_none() {
            connection = place
                .connect()
                .inspect_err(|error| {
                    tracing::warn!(
                        "could not open the store for a checkpoint; the writer thread will run it instead: {error}"
                    );
                })
                .ok();
        }
        if let Some(db) = &connection {
            copy(db);
        }
        // Set after a failure too: the writer then makes the checkpoint.
        copied.store(true, Ordering::Relaxed);
    }
}

/// Copies the frames up to the oldest reader's snapshot into the database.
fn copy(db: &Connection) {
    // PASSIVE waits neither for readers nor for the writer.
    if let Err(error) = db.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        // Nothing is lost: frames that were not copied stay in the log, which is synced at every commit.
        tracing::warn!("checkpoint failed; it is repeated after a later commit: {error}");
    }
}
