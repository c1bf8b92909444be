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

use tokio::sync::Notify;

use super::store_monitor::StoreMonitor;
use crate::clock::Clock;
use crate::lock::IgnorePoison;
use crate::sid::{AccountSid, MessageSid};
use crate::store::{NewInbound, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// Maximum number of buffered replies.
const MAX_BUFFERED: usize = 10_000;
/// Time after a failure of the store in which every peer has written its replies to it.
// A peer writes them within about a second after the store is back. The rest is for the fallback call that follows the
// failure, and for an outage that ends a few seconds later on the peer.
const PEER_FLUSH_TIME: Duration = Duration::from_secs(20);

/// Interval of flushing without a notification.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Unflushed replies: the message, and the fallback text as TwiML if there was one.
type Unflushed = HashMap<(AccountSid, MessageSid), (Arc<NewInbound>, Option<String>)>;

/// Unflushed replies of this server, and the pause of REST replies after a failure of the store.
pub(crate) struct Outage {
    /// Number of `unflushed`. Every message checks it, and it is usually 0, so that check needs no lock.
    count: AtomicUsize,
    unflushed: Mutex<Unflushed>,
    has_fallback_text: bool,
    store: Arc<dyn Store>,
    monitor: Arc<StoreMonitor>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Wakes the backlog, which flushes the replies.
    backlog: Arc<Notify>,
}

impl Outage {
    pub(super) fn new(
        has_fallback_text: bool,
        store: Arc<dyn Store>,
        monitor: Arc<StoreMonitor>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        backlog: Arc<Notify>,
    ) -> Self {
        Self {
            count: AtomicUsize::new(0),
            unflushed: Mutex::default(),
            has_fallback_text,
            store,
            monitor,
            clock,
            metrics,
            backlog,
        }
    }

    /// Buffers the fallback reply to a message until the store is back: TwiML, or `None` without a fallback text.
    pub(super) fn add_reply(&self, inbound: Arc<NewInbound>, twiml: Option<String>) {
        let sid = inbound.sid;
        if !self.buffer(inbound, twiml) {
            tracing::error!(message_sid = %sid, "the buffer for fallback replies is full, so this one will not be in the journal; run `replyhook reconcile` after the outage");
        }
        self.metrics.set_outage_replies(self.reply_count());
        self.backlog.notify_one();
    }

    /// Returns false if the buffer is full.
    fn buffer(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> bool {
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
    pub(crate) fn reply_count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Writes all replies to the store. Stops at the first error, and reports it.
    pub(super) async fn flush(&self) -> Result<(), ()> {
        let flushed = self.write_replies().await;
        self.metrics.set_outage_replies(self.reply_count());
        flushed.map_err(|error| self.monitor.report_failure("backfill", &error))
    }

    /// Flushes replies until it is dropped, during a shutdown, when the backlog is not processed.
    pub(crate) async fn keep_flushing(&self) {
        loop {
            self.flush_all().await;
            let _ = tokio::time::timeout(FLUSH_INTERVAL, self.backlog.notified()).await;
        }
    }

    /// Flushes all replies, and retries while the store is unavailable.
    pub(crate) async fn flush_all(&self) {
        // Has no timeout, since the caller has one.
        while self.flush().await.is_err() || self.reply_count() > 0 {
            tokio::time::sleep(FLUSH_INTERVAL).await;
        }
    }

    /// Logs the SIDs of messages whose replies are unflushed at the end of the process. Returns whether there are any.
    pub(crate) fn log_unflushed(&self) -> bool {
        let unflushed = self.unflushed.lock().ignore_poison();
        let sids: Vec<_> = unflushed.keys().map(|(_, sid)| sid.as_str()).collect();
        if sids.is_empty() {
            return false;
        }
        tracing::error!(
            count = sids.len(),
            message_sids = sids.join(" "),
            "the store is still unavailable, so the journal does not have the replies to these fallback calls; run `replyhook reconcile` when it is back"
        );
        true
    }

    async fn write_replies(&self) -> Result<(), StoreError> {
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
            self.store.backfill(inbound, twiml).await?;
            let mut unflushed = self.unflushed.lock().ignore_poison();
            unflushed.remove(&key);
            self.count.store(unflushed.len(), Ordering::Release);
        }
        Ok(())
    }

    /// Returns the end of the pause of REST replies to a message received at `received` ([`Clock::monotonic`]); `None`
    /// if a reply may be sent now.
    // Needed only with peers and a fallback text: otherwise this server knows every fallback reply to the message.
    pub(super) fn rest_held_until(&self, received: Duration) -> Option<Duration> {
        if !self.store.has_peers() || !self.has_fallback_text {
            return None;
        }
        let failed_at = self.monitor.last_failure();
        let until = failed_at.saturating_add(PEER_FLUSH_TIME);
        (received <= failed_at && self.clock.monotonic() < until).then_some(until)
    }
}
