//! Backlog: messages that no request waits for, because they were deferred before their turn or their process ended.
//!
//! They are handled like any other, in the order of their conversation. Their replies go via the REST API.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::deadlines::Deadlines;
use super::dispatcher::Dispatcher;
use super::message_task::MessageTask;
use super::pending::Responder;
use super::permit::HandlerPermit;
use super::webhook_kind::WebhookKind;
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::sid::MessageSid;
use crate::store::{BacklogMessage, DeadMessage, DeadReason, FailOutcome};

/// Interval of polling the store without a notification: another process may have ended.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of messages claimed in one poll.
const MAX_CLAIMED: usize = 64;
/// Interval of releasing stale claims, and the age from which on a claim of this process that none of its tasks holds is
/// stale.
// Longer than a claiming operation may take, so that a claim whose response is still on its way is not released.
const STALE_CLAIM_AGE: Duration = Duration::from_secs(20);

impl Dispatcher {
    /// Processes the backlog until it is dropped.
    pub(crate) async fn process_backlog(self: Arc<Self>) {
        let mut stale_claims_checked = Duration::ZERO;
        loop {
            let more = self
                .claim_backlog(&mut stale_claims_checked)
                .await
                .unwrap_or(false);
            if !more {
                let _ = tokio::time::timeout(BACKLOG_INTERVAL, self.state.backlog.notified()).await;
            }
        }
    }

    /// Claims messages and spawns their tasks. Returns whether there may be more.
    async fn claim_backlog(
        self: &Arc<Self>,
        stale_claims_checked: &mut Duration,
    ) -> Result<bool, ()> {
        let now = self.clock.now();
        // Unflushed replies first, here and then on all peers: a message that already got the fallback text must not be
        // handled and get a second reply. `ZERO`: a message of the backlog counts as older than any failure, because the
        // process that received it may have seen one.
        self.flush_replies().await?;
        if self.rest_held_until(Duration::ZERO).is_some() {
            return Ok(false);
        }
        // An operation can be committed although it failed here: its response was lost, or the check after the commit
        // failed. Such a message is owned by this process, so no other process claims it, and none of its tasks does. At
        // intervals and not after failures: a redelivery changes the time of the claim, which is stale only later.
        let checked_at = self.clock.monotonic();
        if checked_at.saturating_sub(*stale_claims_checked) >= STALE_CLAIM_AGE {
            let before = now.checked_sub(STALE_CLAIM_AGE).unwrap_or(now);
            let held = self.state.held.ids();
            if let Err(error) = self.store.release_stale_claims(held, before).await {
                // The next poll repeats this.
                self.store_failed("release_stale_claims", &error);
                return Err(());
            }
            *stale_claims_checked = checked_at;
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
        let claimed = match self
            .store
            .claim_backlog(limit, self.limits.crashes, now)
            .await
        {
            Ok(claimed) => claimed,
            Err(error) => {
                self.store_failed("claim_backlog", &error);
                return Err(());
            }
        };
        let more = claimed.messages.len() + claimed.dead.len() == limit;
        for message in claimed.dead {
            self.report_dead(message);
        }
        for message in claimed.messages {
            // A request may have taken the last permit since the count above. The message is claimed, so its handler
            // runs even without a permit.
            let permit = self.try_acquire_permit();
            self.metrics.backlog_processed.inc();
            let claim = &message.claim;
            self.state.deferred.remove(claim.conversation, claim.id);
            self.tasks.spawn(self.clone().run_claimed(message, permit));
        }
        Ok(more)
    }

    /// Writes the unflushed replies of this server to the store.
    async fn flush_replies(&self) -> Result<(), ()> {
        let flushed = self.state.outage.flush(&*self.store).await;
        self.metrics
            .set_outage_replies(self.state.outage.reply_count());
        flushed.map_err(|error| self.store_failed("backfill", &error))
    }

    /// Flushes replies until it is dropped, during a shutdown, when the backlog is not processed.
    pub(crate) async fn keep_flushing_replies(&self) {
        loop {
            self.flush_all_replies().await;
            let _ = tokio::time::timeout(BACKLOG_INTERVAL, self.state.backlog.notified()).await;
        }
    }

    /// Flushes all replies, and retries while the store is unavailable.
    pub(crate) async fn flush_all_replies(&self) {
        // Without a limit of its own: the caller has a timeout.
        while self.flush_replies().await.is_err() || self.state.outage.reply_count() > 0 {
            tokio::time::sleep(BACKLOG_INTERVAL).await;
        }
    }

    /// Returns the number of unflushed replies.
    pub(crate) fn unflushed_reply_count(&self) -> usize {
        self.state.outage.reply_count()
    }

    /// Logs the SIDs of messages whose replies are unflushed at the end of the process. Returns whether there are any.
    pub(crate) fn log_unflushed_replies(&self) -> bool {
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

    /// Runs the task of a claimed message.
    async fn run_claimed(self: Arc<Self>, claimed: BacklogMessage, permit: Option<HandlerPermit>) {
        let params = FormParams::parse(claimed.params.0.as_bytes(), usize::MAX).unwrap_or_default();
        let deadlines = Deadlines::of_backlog(&self.limits, &*self.clock, claimed.received_at);
        let responder = Responder::unattended();
        let task = MessageTask::new(self.clone(), responder, deadlines, WebhookKind::Backlog);
        match InboundMessage::parse(params, claimed.received_at) {
            Ok(message) => task.run_claimed(Box::new(message), claimed, permit).await,
            Err(error) => {
                tracing::error!(message_sid = %claimed.sid, %error, "a stored message cannot be parsed");
                // As the last attempt: another one would fail in the same way.
                let failed = self
                    .store
                    .record_failure(claimed.claim, "it cannot be read", true)
                    .await;
                match failed {
                    Ok(FailOutcome::Dead) => self.report_dead(DeadMessage {
                        sid: claimed.sid,
                        reason: DeadReason::Unreadable,
                    }),
                    Ok(_) => {}
                    Err(error) => self.store_failed("record_failure", &error),
                }
            }
        }
    }
}
