//! Messages that a task of this process is handling or waiting to handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::lock::IgnorePoison;

/// Ids of the messages that a task of this process has claimed or queued, with the number of these tasks.
// The store has an owner for each claim. If the response to a claim is lost, the store names this process as the owner,
// and no task has the message. `Backlog::claim` finds such claims by comparing with this map. Two tasks can
// hold one message: the one that leaves it to the backlog, and the one of the backlog that has already claimed it.
#[derive(Default)]
pub(super) struct HeldMessages(Arc<Mutex<HashMap<i64, u32>>>);

/// Membership of one message, which ends on drop.
pub(super) struct Holding {
    id: i64,
    held: Arc<Mutex<HashMap<i64, u32>>>,
}

impl HeldMessages {
    /// Adds a message until the returned value is dropped.
    pub(super) fn hold(&self, id: i64) -> Holding {
        *self.0.lock().ignore_poison().entry(id).or_default() += 1;
        Holding {
            id,
            held: self.0.clone(),
        }
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.0.lock().ignore_poison().keys().copied().collect()
    }
}

// On drop, so that a panic of the task removes the message as well.
impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.held.lock().ignore_poison();
        if let Some(tasks) = held.get_mut(&self.id) {
            *tasks -= 1;
            if *tasks == 0 {
                held.remove(&self.id);
            }
        }
    }
}
