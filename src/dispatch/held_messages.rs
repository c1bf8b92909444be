//! Messages that a task of this process is handling or waiting to handle.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Ids of the messages that a task of this process has claimed or queued.
// The store has an owner for each claim. If the response to a claim is lost, the store names this process as the owner,
// and no task has the message. `Dispatcher::take_up` finds such claims by comparing with this set.
#[derive(Default)]
pub(super) struct HeldMessages(Arc<Mutex<HashSet<i64>>>);

/// Membership of one message, which ends on drop.
pub(super) struct Holding {
    id: i64,
    held: Arc<Mutex<HashSet<i64>>>,
}

impl HeldMessages {
    /// Adds a message until the returned value is dropped.
    pub(super) fn hold(&self, id: i64) -> Holding {
        lock(&self.0).insert(id);
        Holding {
            id,
            held: self.0.clone(),
        }
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        lock(&self.0).iter().copied().collect()
    }
}

// On drop, so that a panic of the task removes the message as well.
impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.id);
    }
}

// A set of numbers is whole after any panic, so a poisoned lock is usable.
fn lock(held: &Mutex<HashSet<i64>>) -> std::sync::MutexGuard<'_, HashSet<i64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
