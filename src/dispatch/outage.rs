//! Store outages: fallback replies that were sent while the store was unavailable, and the pause after an outage.
//!
//! The server buffers such a reply in memory, and writes it to the journal when the store is available again, before it
//! processes the backlog.
//!
//! With several servers on one store, another server may have sent such a reply: Twilio calls the fallback URL of any
//! server for a message that this one could not answer. So after its start and after a failure of the store, a server with
//! peers waits [`PEER_FLUSH_TIME`] before it sends a REST reply to an earlier message. In that time the peers write their
//! replies, and the store then rejects a second one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock::IgnorePoison;
use crate::sid::{AccountSid, MessageSid};
use crate::store::{NewInbound, Store, StoreError};

/// Maximum number of buffered replies.
const MAX_BUFFERED: usize = 10_000;
/// Time after a failure of the store in which every peer has written its replies to it.
// A peer writes them within about a second after the store is back. The rest is for the fallback call that follows the
// failure, and for an outage that ends a few seconds later on the peer.
const PEER_FLUSH_TIME: Duration = Duration::from_secs(20);

/// Unflushed replies: the message, and the fallback text as TwiML if there was one.
type Unflushed = HashMap<(AccountSid, MessageSid), (Arc<NewInbound>, Option<String>)>;

/// Unflushed replies of this server, and the time of the last failure of the store.
pub(super) struct Outage {
    /// Number of `unflushed`. Every message checks it, and it is usually 0, so that check needs no lock.
    count: AtomicUsize,
    unflushed: Mutex<Unflushed>,
    /// Time of the last failure of the store, by [`Clock::monotonic`](crate::clock::Clock::monotonic).
    failed_at: Mutex<Duration>,
}

impl Outage {
    /// Creates the state of a server that starts at `now`. The start counts as a failure: this process resumes messages of others, which may still buffer
    /// replies to them.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            count: AtomicUsize::new(0),
            unflushed: Mutex::default(),
            failed_at: Mutex::new(now),
        }
    }

    /// Buffers the fallback reply to a message: TwiML, or `None` without a fallback text.
    ///
    /// Returns false if the buffer is full.
    pub(super) fn add_reply(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> bool {
        let mut unflushed = self.unflushed.lock().ignore_poison();
        let key = (inbound.account, inbound.sid);
        if unflushed.len() >= MAX_BUFFERED && !unflushed.contains_key(&key) {
            return false;
        }
        // The first reply stays: a repeated fallback call gets the same text.
        unflushed.entry(key).or_insert((inbound, twiml));
        // Under the lock, so that the count follows the order of changes. Release, with the Acquire in `reply_count`.
        self.count.store(unflushed.len(), Ordering::Release);
        true
    }

    /// Returns whether an unflushed fallback text was sent for a message, which must then not get another reply.
    pub(super) fn has_answered(&self, account: AccountSid, sid: MessageSid) -> bool {
        self.reply_count() > 0
            && matches!(
                self.unflushed.lock().ignore_poison().get(&(account, sid)),
                Some((_, Some(_)))
            )
    }

    /// Returns the number of unflushed replies.
    pub(super) fn reply_count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Returns the SIDs of the messages with unflushed replies.
    pub(super) fn sids(&self) -> Vec<MessageSid> {
        self.unflushed
            .lock()
            .ignore_poison()
            .keys()
            .map(|(_, sid)| *sid)
            .collect()
    }

    /// Writes all replies to the store. Stops at the first error.
    pub(super) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        while self.reply_count() > 0 {
            // One at a time, without the lock during the call: other requests can buffer replies. A reply stays in the
            // buffer until the store has it, so `has_answered` never misses one.
            let next = self
                .unflushed
                .lock()
                .ignore_poison()
                .iter()
                .next()
                .map(|(key, reply)| (*key, reply.clone()));
            let Some((key, (inbound, twiml))) = next else {
                return Ok(());
            };
            store.backfill(inbound, twiml).await?;
            let mut unflushed = self.unflushed.lock().ignore_poison();
            unflushed.remove(&key);
            self.count.store(unflushed.len(), Ordering::Release);
        }
        Ok(())
    }

    /// Records a failure of the store.
    pub(super) fn store_failed(&self, now: Duration) {
        let mut failed_at = self.failed_at.lock().ignore_poison();
        // Concurrent failures may come in any order.
        *failed_at = now.max(*failed_at);
    }

    /// Returns the time until which a peer may hold an unflushed reply to a message that was received at a time of
    /// [`Clock::monotonic`](crate::clock::Clock::monotonic); `None` if the store has not failed since.
    pub(super) fn held_until(&self, received: Duration) -> Option<Duration> {
        let failed_at = *self.failed_at.lock().ignore_poison();
        (received <= failed_at).then(|| failed_at.saturating_add(PEER_FLUSH_TIME))
    }
}
