//! Checkpoints of the write-ahead log, on a thread of their own.
//!
//! A checkpoint copies the pages of the log into the database and syncs it. By default SQLite makes it inside the commit that
//! finds the log too long, and every other write waits for it: some milliseconds while the pages lie close together, and up to
//! a second where they are spread over a large database, as the pages of expired rows are. This thread copies them while
//! commits go on.

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

/// Frames of the log from which on a checkpoint is due. A frame is a page of 4 KiB.
const DUE: i32 = 8_000;
/// Frames from which on the writer makes the checkpoint itself, so that the log stays bounded where the thread does not keep up.
const OVERDUE: i32 = 4 * DUE;

/// The writer's side of the thread.
pub(super) struct Checkpointer {
    /// Length of the log after the last commit, in frames. SQLite reports it on the writer's own thread, so no order of memory
    /// is needed; an atomic only because a hook has to be `Send`.
    frames: Arc<AtomicI32>,
    /// Set when the thread has copied the log. It orders nothing: SQLite's own index says which frames are copied.
    copied: Arc<AtomicBool>,
    is_copying: bool,
    /// `None` while it is dropped.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(place: Place) -> std::io::Result<Self> {
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

    /// Makes the writer's connection report the length of the log, in place of making checkpoints itself.
    pub(super) fn attach(&self, db: &mut Connection) -> Result<(), StoreError> {
        let frames = self.frames.clone();
        db.wal_hook(Some(move |_: &mut Wal, length| {
            frames.store(length, Ordering::Relaxed);
            Ok(())
        }))
        .map_err(store_error)
    }

    /// Begins or ends a checkpoint where one is due. The writer calls it between two transactions, after it has told the
    /// outcome of the first.
    pub(super) fn after_commit(&mut self, db: &Connection) {
        if self.copied.swap(false, Ordering::Relaxed) {
            self.is_copying = false;
            // The thread can never copy the last frame of a busy log, and only a log that is copied whole begins again. No
            // commit comes in between here, and the frames since are few.
            copy(db);
            return;
        }
        let frames = self.frames.load(Ordering::Relaxed);
        if frames < DUE {
            return;
        }
        if !self.is_copying {
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
        // Ends the thread's loop. It is joined so that its connection is closed before the file is unlocked.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(place: &Place, requests: &Receiver<()>, copied: &AtomicBool) {
    // Opened for the first checkpoint and kept: small stores never need it.
    let mut connection = None;
    for () in requests {
        if connection.is_none() {
            connection = place
                .connect()
                .inspect_err(|error| {
                    tracing::warn!("cannot open the store for a checkpoint: {error}")
                })
                .ok();
        }
        if let Some(db) = &connection {
            copy(db);
        }
        // Also where it failed: then the writer copies all of it.
        copied.store(true, Ordering::Relaxed);
    }
}

/// Copies what no reader still needs in the log, and waits for nobody.
fn copy(db: &Connection) {
    if let Err(error) = db.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        // Nothing is lost: what was not copied stays in the log, which is synced at every commit.
        tracing::warn!("checkpoint failed, and is made again after the next commit: {error}");
    }
}
