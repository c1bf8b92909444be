//! Buffer of fallback replies that were sent while the store was unavailable.
//!
//! They are written to the journal when the store is back, before the backlog is processed. With several servers
//! on one store, another server may have sent such a reply: Twilio calls the fallback URL for a message that this
//! server rejected. So after a failure, nothing goes via the REST API until every other server has recorded that
//! its buffer is empty.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::sid::{AccountSid, MessageSid};
use crate::store::{NewInbound, Store, StoreError};

/// Maximum number of buffered replies.
const MAX_BUFFERED: usize = 10_000;
/// Time from a rejected message to the end of the fallback call that follows. A peer's report from within it may be
/// older than the fallback reply.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Time after which a peer without a report counts as dead. Longer than a lease, which is 15 s.
const PEER_TIMEOUT: Duration = Duration::from_secs(18);

/// Unflushed replies: the message, and the fallback text as TwiML if there was one.
type Told = HashMap<(AccountSid, MessageSid), (Arc<NewInbound>, Option<String>)>;

/// Unflushed replies of this server, and whether peers may have some.
pub(super) struct Outage {
    /// Number of `told`. Every message checks it, and it is usually 0, so that check needs no lock.
    number: AtomicUsize,
    told: Mutex<Told>,
    /// Time of the last failure of the store; `None` once all peers have flushed their replies.
    failed: Mutex<Option<Instant>>,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            number: AtomicUsize::new(0),
            told: Mutex::default(),
            // A start counts as a failure: this process resumes messages of others, which may still
            // buffer replies to them.
            failed: Mutex::new(Some(Instant::now())),
        }
    }
}

impl Outage {
    /// Buffers the fallback reply to a message: TwiML, or `None` without a fallback text.
    ///
    /// Returns false if the buffer is full.
    pub(super) fn remember(
        &self,
        store: &dyn Store,
        arrival: Arc<NewInbound>,
        said: Option<String>,
    ) -> bool {
        let mut told = lock(&self.told);
        let key = (arrival.account, arrival.sid);
        if told.len() >= MAX_BUFFERED && !told.contains_key(&key) {
            return false;
        }
        // The first reply stays: a repeated fallback call gets the same text.
        told.entry(key).or_insert((arrival, said));
        // Under the lock, so that number and flag follow the order of changes. Release, with the Acquire in `number`.
        self.number.store(told.len(), Ordering::Release);
        // Before the response is sent, so that no heartbeat reports an empty buffer afterwards.
        store.set_unflushed(true);
        true
    }

    /// Returns whether an unflushed fallback text was sent for a message, which must then not get another reply.
    pub(super) fn has_answered(&self, account: AccountSid, sid: MessageSid) -> bool {
        self.number.load(Ordering::Acquire) > 0
            && matches!(lock(&self.told).get(&(account, sid)), Some((_, Some(_))))
    }

    /// Returns the number of unflushed replies.
    pub(super) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    /// Returns the SIDs of the messages with unflushed replies.
    pub(super) fn sids(&self) -> Vec<MessageSid> {
        lock(&self.told).keys().map(|(_, sid)| *sid).collect()
    }

    /// Flushes all replies. Stops at the first error.
    pub(super) async fn enter(&self, store: &dyn Store) -> Result<(), StoreError> {
        while self.number() > 0 {
            // One at a time, without the lock during the call: other requests can buffer replies. A reply stays in the
            // buffer until the store has it, so `has_answered` never misses one.
            let next = lock(&self.told)
                .iter()
                .next()
                .map(|(key, told)| (*key, told.clone()));
            let Some((key, (arrival, said))) = next else {
                return Ok(());
            };
            store.backfill(arrival, said).await?;
            let mut told = lock(&self.told);
            told.remove(&key);
            self.number.store(told.len(), Ordering::Release);
            // Under the lock: a reply that is buffered at this moment sets the flag again afterwards.
            if told.is_empty() {
                store.set_unflushed(false);
            }
        }
        Ok(())
    }

    /// Records a failure of the store.
    pub(super) fn begins(&self) {
        *lock(&self.failed) = Some(Instant::now());
    }

    /// Returns whether every peer has flushed the replies that it may have sent since the store last failed here.
    pub(super) async fn is_over_elsewhere(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let Some(failed) = *lock(&self.failed) else {
            return Ok(true);
        };
        let ago = failed.elapsed();
        // Only a report from after `failed + FOLLOWED` covers the fallback calls of messages rejected until `failed`.
        if ago < PEER_TIMEOUT
            && !store
                .peers_flushed_within(ago.saturating_sub(FOLLOWED))
                .await?
        {
            return Ok(false);
        }
        // The store may have failed again during the query. Then its result is about an earlier failure.
        let mut known = lock(&self.failed);
        if *known == Some(failed) {
            *known = None;
        }
        Ok(known.is_none())
    }
}

// A panic under a lock leaves whole entries only, so a poisoned lock is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
