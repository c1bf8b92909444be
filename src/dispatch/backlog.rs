//! Backlog: messages that no request waits for, because they were deferred before their turn or their process ended.
//!
//! They are handled like any other, in the order of their conversation. Their replies go via the REST API.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Arrived, Course, Dispatcher, Slot};
use crate::clock::after;
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::sid::MessageSid;
use crate::store::{BacklogMessage, DeadMessage, DeadReason, FailOutcome};
use crate::twiml::Document;

/// Interval of polling the store without a notification: another process may have ended.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of polling the store until all peers have flushed their replies.
const PEER_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of messages claimed in one poll.
const MAX_CLAIMED: usize = 64;
/// Age after which a claim of this process that none of its tasks holds is stale.
// Longer than a claiming operation may take, so that a claim whose response is still on its way is not released.
const STALE_CLAIM_AGE: Duration = Duration::from_secs(20);

impl Dispatcher {
    /// Processes the backlog until it is dropped.
    pub(crate) async fn work_off(self: Arc<Self>) {
        loop {
            let more = self.take_up().await.unwrap_or(false);
            if !more {
                let _ = tokio::time::timeout(BACKLOG_INTERVAL, self.state.backlog.notified()).await;
            }
        }
    }

    /// Claims messages and spawns their tasks. Returns whether there may be more.
    async fn take_up(self: &Arc<Self>) -> Result<bool, ()> {
        let now = self.clock.now();
        // Unflushed replies first, here and then on all peers: a message that already got the fallback text must not be
        // handled and get a second reply.
        self.enter().await?;
        if !self.is_over_elsewhere().await {
            return Ok(false);
        }
        // A claim may have been committed although its response was lost. Such a message is owned by this process, so
        // no other process claims it. Relaxed: the flag publishes no other data.
        if self.state.store_failed.swap(false, Ordering::Relaxed) {
            let before = now.checked_sub(STALE_CLAIM_AGE).unwrap_or(now);
            let held = self.state.held.ids();
            if let Err(error) = self.store.release_stale_claims(held, before).await {
                // Sets the flag again, so that the next poll repeats this.
                self.store_failed("release_stale_claims", &error);
                return Err(());
            }
        }
        // Relaxed: an estimate. Requests may take or release permits until the messages are claimed.
        let free = self
            .limits
            .running
            .saturating_sub(self.state.running.load(Ordering::Relaxed));
        let limit = free.min(MAX_CLAIMED);
        if limit == 0 {
            return Ok(false);
        }
        let taken_up = match self
            .store
            .claim_backlog(limit, self.limits.crashes, now)
            .await
        {
            Ok(taken_up) => taken_up,
            Err(error) => {
                self.store_failed("claim_backlog", &error);
                return Err(());
            }
        };
        let more = taken_up.messages.len() + taken_up.dead.len() == limit;
        for message in taken_up.dead {
            self.report_dead(message);
        }
        for taken in taken_up.messages {
            // A request may have taken the last permit since the count above. The message is claimed, so its handler
            // runs even without a permit.
            let place = Slot::take(self);
            self.metrics.backlog_processed.increment(1);
            let claim = &taken.claim;
            self.state.deferred.remove(claim.conversation, claim.id);
            self.tasks.spawn(self.clone().handle_taken(taken, place));
        }
        Ok(more)
    }

    /// Writes the unflushed replies of this server to the store.
    async fn enter(&self) -> Result<(), ()> {
        let entered = self.state.outage.enter(&*self.store).await;
        self.metrics.set_outage_replies(self.state.outage.number());
        entered.map_err(|error| self.store_failed("backfill", &error))
    }

    /// Flushes replies until it is dropped, during a shutdown, when the backlog is not processed.
    pub(crate) async fn keep_entering(&self) {
        loop {
            self.enter_all().await;
            let _ = tokio::time::timeout(BACKLOG_INTERVAL, self.state.backlog.notified()).await;
        }
    }

    /// Flushes all replies, and retries while the store is unavailable.
    pub(crate) async fn enter_all(&self) {
        // Without a limit of its own: the caller has a timeout.
        while self.enter().await.is_err() || self.state.outage.number() > 0 {
            tokio::time::sleep(BACKLOG_INTERVAL).await;
        }
    }

    /// Returns the number of unflushed replies.
    pub(crate) fn outage_replies(&self) -> usize {
        self.state.outage.number()
    }

    /// Logs the SIDs of messages whose replies are unflushed at the end of the process. Returns whether there are any.
    pub(crate) fn clear_outage_replies(&self) -> bool {
        let sids = self.state.outage.sids();
        if sids.is_empty() {
            return false;
        }
        let names: Vec<_> = sids.iter().map(MessageSid::as_str).collect();
        let count = names.len();
        tracing::error!(
            count,
            message_sids = names.join(" "),
            "the store is still unavailable, so the journal does not have the replies to these fallback calls; run `replyhook reconcile` when it is back"
        );
        true
    }

    /// Waits until all peers have flushed the replies that they may have sent since the last failure of the store.
    pub(super) async fn outage_over_elsewhere(&self) {
        while !self.is_over_elsewhere().await {
            tokio::time::sleep(PEER_POLL_INTERVAL).await;
        }
    }

    /// Returns whether all peers have flushed the replies that they may have sent since the last failure of the store.
    async fn is_over_elsewhere(&self) -> bool {
        // Without a fallback text, a fallback call gets no reply from memory, so there is nothing to wait for.
        if self.fallback_text == Document::empty() {
            return true;
        }
        match self.state.outage.is_over_elsewhere(&*self.store).await {
            Ok(is_over) => is_over,
            Err(error) => {
                self.store_failed("peers_flushed_within", &error);
                false
            }
        }
    }

    /// Runs the task of a claimed message.
    async fn handle_taken(self: Arc<Self>, taken: BacklogMessage, place: Option<Slot>) {
        let now = self.clock.now();
        let params = FormParams::parse(taken.params.0.as_bytes(), usize::MAX).unwrap_or_default();
        // By the wall clock: the monotonic clock of another process, which received the message, means nothing here.
        let waited = Duration::try_from(now.duration_since(taken.received_at)).unwrap_or_default();
        let arrived = Arrived {
            monotonic: self.clock.monotonic().saturating_sub(waited),
            deadline: after(now, self.limits.handler),
        };
        let course = Course::unattended(self.clone(), arrived);
        match InboundMessage::parse(params, taken.received_at) {
            Ok(message) => course.take_over(Box::new(message), taken, place).await,
            Err(error) => {
                tracing::error!(message_sid = %taken.sid, %error, "a stored message cannot be parsed");
                // As the last attempt: another one would fail in the same way.
                let failed = self
                    .store
                    .record_failure(taken.claim, "it cannot be read", true)
                    .await;
                match failed {
                    Ok(FailOutcome::Dead) => self.report_dead(DeadMessage {
                        sid: taken.sid,
                        reason: DeadReason::Unreadable,
                    }),
                    Ok(_) => {}
                    Err(error) => self.store_failed("record_failure", &error),
                }
            }
        }
    }
}
