//! What fallback calls were told while the store could not be asked: entered in the journal when it returns, before
//! anything that was left behind is taken up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sid::{AccountSid, MessageSid};
use crate::store::{Arrival, Store, StoreError};

/// Answers that are remembered at most.
const MOST: usize = 10_000;

type Told = HashMap<(AccountSid, MessageSid), (Arc<Arrival>, Option<String>)>;

/// Answers that the journal does not have yet.
#[derive(Default)]
pub(super) struct Outage {
    /// Tells without a lock that there are none, as is usual.
    number: AtomicUsize,
    told: Mutex<Told>,
}

impl Outage {
    /// Remembers what a message was told: TwiML, or nothing at all. Returns whether there was room.
    pub(super) fn remember(&self, arrival: Arc<Arrival>, said: Option<String>) -> bool {
        let mut told = self.lock();
        let key = (arrival.account, arrival.sid);
        if told.len() >= MOST && !told.contains_key(&key) {
            return false;
        }
        told.entry(key).or_insert((arrival, said));
        self.number.store(told.len(), Ordering::Release);
        true
    }

    /// Whether a message was told something from memory, so that it must not be told more.
    pub(super) fn has_answered(&self, account: AccountSid, sid: MessageSid) -> bool {
        self.number.load(Ordering::Acquire) > 0
            && matches!(self.lock().get(&(account, sid)), Some((_, Some(_))))
    }

    /// Enters everything, or stops at the first that the store does not take.
    pub(super) async fn enter(&self, store: &dyn Store) -> Result<(), StoreError> {
        while self.number.load(Ordering::Acquire) > 0 {
            let next = self
                .lock()
                .iter()
                .next()
                .map(|(key, told)| (*key, told.clone()));
            let Some((key, (arrival, said))) = next else {
                return Ok(());
            };
            store.enter(arrival, said).await?;
            let mut told = self.lock();
            told.remove(&key);
            self.number.store(told.len(), Ordering::Release);
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
