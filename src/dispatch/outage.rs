//! What fallback calls were told while the store could not be asked: entered in the journal when it returns, before
//! anything that was left behind is taken up.
//!
//! Of several machines on one store another one may have told it. Twilio calls the fallback for what was refused here
//! because the store failed, so after a failure nothing goes out by REST before every other machine has shown that it has
//! entered what it told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::sid::{AccountSid, MessageSid};
use crate::store::{Arrival, Store, StoreError};

/// Answers that are remembered at most.
const MOST: usize = 10_000;
/// From a refusal to the end of the fallback call that follows it: what is shown before that does not count.
const FOLLOWED: Duration = Duration::from_secs(3);
/// A machine that has shown nothing for so long has ended, or is cut off for longer than it may be.
const PATIENCE: Duration = Duration::from_secs(18);

type Told = HashMap<(AccountSid, MessageSid), (Arc<Arrival>, Option<String>)>;

/// Answers that the journal does not have yet, here and elsewhere.
pub(super) struct Outage {
    /// Tells without a lock that there are none here, as is usual.
    number: AtomicUsize,
    told: Mutex<Told>,
    /// When the store last failed; nothing once all that others told is known to be entered. A process begins with a
    /// failure: what it takes up was left behind by another.
    failed: Mutex<Option<Instant>>,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            number: AtomicUsize::new(0),
            told: Mutex::default(),
            failed: Mutex::new(Some(Instant::now())),
        }
    }
}

impl Outage {
    /// Remembers what a message was told: TwiML, or nothing at all. Returns whether there was room.
    pub(super) fn remember(
        &self,
        store: &dyn Store,
        arrival: Arc<Arrival>,
        said: Option<String>,
    ) -> bool {
        let mut told = lock(&self.told);
        let key = (arrival.account, arrival.sid);
        if told.len() >= MOST && !told.contains_key(&key) {
            return false;
        }
        told.entry(key).or_insert((arrival, said));
        self.number.store(told.len(), Ordering::Release);
        store.owes(true);
        true
    }

    /// Whether a message was told something from memory, so that it must not be told more.
    pub(super) fn has_answered(&self, account: AccountSid, sid: MessageSid) -> bool {
        self.number.load(Ordering::Acquire) > 0
            && matches!(lock(&self.told).get(&(account, sid)), Some((_, Some(_))))
    }

    /// How many messages were told something, or nothing, and are not entered.
    pub(super) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    /// Which these are.
    pub(super) fn sids(&self) -> Vec<MessageSid> {
        lock(&self.told).keys().map(|(_, sid)| *sid).collect()
    }

    /// Enters everything, or stops at the first that the store does not take.
    pub(super) async fn enter(&self, store: &dyn Store) -> Result<(), StoreError> {
        while self.number() > 0 {
            let next = lock(&self.told)
                .iter()
                .next()
                .map(|(key, told)| (*key, told.clone()));
            let Some((key, (arrival, said))) = next else {
                return Ok(());
            };
            store.enter(arrival, said).await?;
            let mut told = lock(&self.told);
            told.remove(&key);
            self.number.store(told.len(), Ordering::Release);
            if told.is_empty() {
                store.owes(false);
            }
        }
        Ok(())
    }

    /// The store has failed.
    pub(super) fn begins(&self) {
        *lock(&self.failed) = Some(Instant::now());
    }

    /// Whether all that other machines may have told since the store failed here is entered.
    pub(super) async fn is_over_elsewhere(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let Some(failed) = *lock(&self.failed) else {
            return Ok(true);
        };
        let ago = failed.elapsed();
        if ago < PATIENCE && !store.others_entered(ago.saturating_sub(FOLLOWED)).await? {
            return Ok(false);
        }
        // It may have failed again meanwhile.
        let mut known = lock(&self.failed);
        if *known == Some(failed) {
            *known = None;
        }
        Ok(known.is_none())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
