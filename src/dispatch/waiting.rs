//! Who waits for what in this process. Other processes are noticed by looking again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// The decision about a message, by its number.
    Decision(i64),
    /// The end of a message of a conversation, by its number.
    Turn(i64),
}

/// Everybody who waits.
#[derive(Default)]
pub(super) struct Waiting {
    /// Tells without a lock that nobody does, as is usual.
    number: Arc<AtomicUsize>,
    waiters: Arc<Mutex<HashMap<Event, Waiters>>>,
}

struct Waiters {
    notify: Arc<Notify>,
    number: usize,
}

/// Conversations of which messages were deferred before their turn, and which: when one of theirs ends, the backlog has
/// something to do.
#[derive(Default)]
pub(super) struct Deferred {
    number: AtomicUsize,
    conversations: Mutex<HashMap<i64, HashSet<i64>>>,
}

impl Deferred {
    pub(super) fn add(&self, conversation: i64, message: i64) {
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
        self.conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
pub(super) struct Ticket {
    event: Event,
    notify: Arc<Notify>,
    number: Arc<AtomicUsize>,
    waiters: Arc<Mutex<HashMap<Event, Waiters>>>,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Waiting {
    pub(super) fn join(&self, event: Event) -> Ticket {
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

    pub(super) fn wake(&self, event: Event) {
        if self.number.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(waiters) = lock(&self.waiters).get(&event) {
            waiters.notify.notify_waiters();
        }
    }
}

impl Ticket {
    /// Looks, and looks again each time something happens or a while has passed, until there is something to see.
    pub(super) async fn look<T, F, Fut>(&mut self, mut look: F) -> T
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        loop {
            // Before looking: what happens meanwhile must not be missed.
            let mut happened = std::pin::pin!(self.notify.notified());
            happened.as_mut().enable();
            if let Some(seen) = look().await {
                return seen;
            }
            let _ = tokio::time::timeout(self.pause, happened).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
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

fn lock(
    waiters: &Mutex<HashMap<Event, Waiters>>,
) -> std::sync::MutexGuard<'_, HashMap<Event, Waiters>> {
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}
