//! What is in the hands of this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Messages in the hands of this process.
#[derive(Default)]
pub(super) struct Held(Arc<Mutex<HashSet<i64>>>);

/// One of them.
pub(super) struct Holding {
    id: i64,
    held: Arc<Mutex<HashSet<i64>>>,
}

impl Held {
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

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.id);
    }
}

fn lock(held: &Mutex<HashSet<i64>>) -> std::sync::MutexGuard<'_, HashSet<i64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
