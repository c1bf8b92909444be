//! Notifications between the tasks of this process. Changes by other processes are found by polling.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::lock::IgnorePoison;

/// Event that a task can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wakeup {
    /// The reply path of the message with this id was decided.
    Decision(i64),
    /// A message of the conversation with this id is finished, so the turn of another may have come.
    Turn(i64),
}

/// Waiting tasks, by event.
#[derive(Default)]
pub(super) struct Waiting {
    /// Number of waiting tasks. Every message checks it, and it is usually 0, so that check needs no lock.
    // SeqCst, so that `join` and `wake` cannot miss each other: `wake` reads the number after the change of the store,
    // and `join` increases it before the task reads the store. At worst the task finds the change at its next poll.
    number: Arc<AtomicUsize>,
    waiters: Arc<Mutex<HashMap<Wakeup, Waiters>>>,
}

/// Tasks that wait for one event.
struct Waiters {
    notify: Arc<Notify>,
    number: usize,
}

/// Messages that were deferred before their turn, by conversation. When a message of such a conversation ends, the
/// backlog is notified.
// Only a hint that saves polling: the messages themselves are in the store.
#[derive(Default)]
pub(super) struct Deferred {
    /// Number of messages. Usually 0, so that most checks need no lock.
    number: AtomicUsize,
    conversations: Mutex<HashMap<i64, HashSet<i64>>>,
}

impl Deferred {
    pub(super) fn add(&self, conversation: i64, message: i64) {
        // Before the insertion: a task that knows of the entry then reads a number above 0, so `remove`
        // does not skip it.
        self.number.fetch_add(1, Ordering::SeqCst);
        let mut conversations = self.lock();
        if !conversations
            .entry(conversation)
            .or_default()
            .insert(message)
        {
            self.number.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn remove(&self, conversation: i64, message: i64) {
        if self.number.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut conversations = self.lock();
        if let Some(messages) = conversations.get_mut(&conversation)
            && messages.remove(&message)
        {
            self.number.fetch_sub(1, Ordering::SeqCst);
            if messages.is_empty() {
                conversations.remove(&conversation);
            }
        }
    }

    pub(super) fn contains(&self, conversation: i64) -> bool {
        self.number.load(Ordering::SeqCst) > 0 && self.lock().contains_key(&conversation)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, HashSet<i64>>> {
        self.conversations.lock().ignore_poison()
    }
}

/// Registration of a waiting task, which ends on drop.
pub(super) struct Ticket {
    event: Wakeup,
    notify: Arc<Notify>,
    number: Arc<AtomicUsize>,
    waiters: Arc<Mutex<HashMap<Wakeup, Waiters>>>,
    pause: Duration,
}

/// Pause before the second poll. It doubles with each poll, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Maximum time after which a change by another process is found.
const MAX_PAUSE: Duration = Duration::from_millis(500);

impl Waiting {
    /// Registers a task that waits for an event.
    pub(super) fn join(&self, event: Wakeup) -> Ticket {
        self.number.fetch_add(1, Ordering::SeqCst);
        let mut waiters = lock(&self.waiters);
        let entry = waiters.entry(event).or_insert_with(|| Waiters {
            notify: Arc::default(),
            number: 0,
        });
        entry.number += 1;
        Ticket {
            event,
            notify: entry.notify.clone(),
            number: self.number.clone(),
            waiters: self.waiters.clone(),
            pause: FIRST_PAUSE,
        }
    }

    /// Wakes the tasks that wait for an event.
    pub(super) fn wake(&self, event: Wakeup) {
        if self.number.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(waiters) = lock(&self.waiters).get(&event) {
            waiters.notify.notify_waiters();
        }
    }
}

impl Ticket {
    /// Polls `check` until it returns a value: immediately, after each event, and after each pause. Returns `None` once
    /// `ended` has completed.
    pub(super) async fn poll<T, F, Fut>(
        &mut self,
        ended: impl Future<Output = ()>,
        mut check: F,
    ) -> Option<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        let mut ended = std::pin::pin!(ended);
        loop {
            // `notify_waiters` wakes only those already registered. Register before the check, so that an event during
            // the check is not missed.
            let mut happened = std::pin::pin!(self.notify.notified());
            happened.as_mut().enable();
            // `ended` does not cancel a check: it may claim the message, and a claim whose result is dropped has no
            // task, so the message would stay unanswered until the next start.
            if let Some(value) = check().await {
                return Some(value);
            }
            tokio::select! {
                () = &mut ended => return None,
                _ = tokio::time::timeout(self.pause, happened) => {}
            }
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // The last task of an event removes its entry, so the map does not grow.
        self.number.fetch_sub(1, Ordering::SeqCst);
        let mut waiters = lock(&self.waiters);
        if let Some(entry) = waiters.get_mut(&self.event) {
            entry.number -= 1;
            if entry.number == 0 {
                waiters.remove(&self.event);
            }
        }
    }
}

// A panic under this lock leaves at worst a count too high, which costs a lock in `wake`: a poisoned lock is usable.
fn lock(
    waiters: &Mutex<HashMap<Wakeup, Waiters>>,
) -> std::sync::MutexGuard<'_, HashMap<Wakeup, Waiters>> {
    waiters.lock().ignore_poison()
}
