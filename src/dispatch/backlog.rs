//! Backlog: messages that no request waits for, because they were deferred before their turn or their process ended.
//!
//! They are handled like any other, in the order of their conversation. Their replies go via the REST API.

use std::sync::Arc;
use std::time::Duration;

use super::dead_messages::report_dead;
use super::deadlines::Deadlines;
use super::dispatcher::Dispatcher;
use super::message_task::MessageTask;
use super::pending::Responder;
use super::permit::HandlerPermit;
use super::webhook_kind::WebhookKind;
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::store::{BacklogMessage, DeadMessage, DeadReason, FailOutcome};

/// Interval of polling the store without a notification: another process may have ended.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of messages claimed in one poll.
const MAX_CLAIMED: usize = 64;
/// Interval of releasing stale claims, and the age from which on a claim of this process that none of its tasks holds is
/// stale.
// Longer than a claiming operation may take, so that a claim whose response is still on its way is not released.
const STALE_CLAIM_AGE: Duration = Duration::from_secs(20);

/// Processing of the backlog.
pub(crate) struct Backlog {
    dispatcher: Arc<Dispatcher>,
    /// Time of the last release of stale claims, by [`Clock::monotonic`](crate::clock::Clock::monotonic).
    stale_claims_checked: Duration,
}

impl Backlog {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self {
            dispatcher,
            stale_claims_checked: Duration::ZERO,
        }
    }

    /// Processes the backlog until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let more = self.claim().await.unwrap_or(false);
            if !more {
                let notified = self.dispatcher.backlog.notified();
                let _ = tokio::time::timeout(BACKLOG_INTERVAL, notified).await;
            }
        }
    }

    /// Claims messages and spawns their tasks. Returns whether there may be more.
    async fn claim(&mut self) -> Result<bool, ()> {
        let dispatcher = &self.dispatcher;
        let now = dispatcher.clock.now();
        // Unflushed replies first, here and then on all peers: a message that already got the fallback text must not be
        // handled and get a second reply. `ZERO`: a message of the backlog counts as older than any failure, because the
        // process that received it may have seen one.
        dispatcher.outage.flush().await?;
        if dispatcher.outage.rest_held_until(Duration::ZERO).is_some() {
            return Ok(false);
        }
        // An operation can be committed although it failed here: its response was lost, or the check after the commit
        // failed. Such a message is owned by this process, so no other process claims it, and none of its tasks does. At
        // intervals and not after failures: a redelivery changes the time of the claim, which is stale only later.
        let checked_at = dispatcher.clock.monotonic();
        if checked_at.saturating_sub(self.stale_claims_checked) >= STALE_CLAIM_AGE {
            let before = now.checked_sub(STALE_CLAIM_AGE).unwrap_or(now);
            let held = dispatcher.held.ids();
            if let Err(error) = dispatcher.store.release_stale_claims(held, before).await {
                // The next poll repeats this.
                dispatcher
                    .monitor
                    .report_failure("release_stale_claims", &error);
                return Err(());
            }
            self.stale_claims_checked = checked_at;
        }
        let limit = dispatcher.permits.available().min(MAX_CLAIMED);
        if limit == 0 {
            return Ok(false);
        }
        let claimed = match dispatcher
            .store
            .claim_backlog(limit, dispatcher.limits.crashes, now)
            .await
        {
            Ok(claimed) => claimed,
            Err(error) => {
                dispatcher.monitor.report_failure("claim_backlog", &error);
                return Err(());
            }
        };
        let more = claimed.messages.len() + claimed.dead.len() == limit;
        for message in claimed.dead {
            report_dead(&dispatcher.metrics, message);
        }
        for message in claimed.messages {
            // A request may have taken the last permit since the count above. The message is claimed, so its handler
            // runs even without a permit.
            let permit = dispatcher.permits.try_acquire();
            dispatcher.metrics.backlog_processed.inc();
            let claim = &message.claim;
            dispatcher.deferred.remove(claim.conversation, claim.id);
            dispatcher
                .tasks
                .spawn(run_claimed(dispatcher.clone(), message, permit));
        }
        Ok(more)
    }
}

/// Runs the task of a claimed message.
async fn run_claimed(
    dispatcher: Arc<Dispatcher>,
    claimed: BacklogMessage,
    permit: Option<HandlerPermit>,
) {
    let params = FormParams::parse(claimed.params.0.as_bytes(), usize::MAX).unwrap_or_default();
    let deadlines =
        Deadlines::of_backlog(&dispatcher.limits, &*dispatcher.clock, claimed.received_at);
    let responder = Responder::unattended();
    let task = MessageTask::new(
        dispatcher.clone(),
        responder,
        deadlines,
        WebhookKind::Backlog,
    );
    match InboundMessage::parse(params, claimed.received_at) {
        Ok(message) => task.run_claimed(Box::new(message), claimed, permit).await,
        Err(error) => {
            tracing::error!(message_sid = %claimed.sid, %error, "a stored message cannot be parsed");
            // As the last attempt: another one would fail in the same way.
            let failed = dispatcher
                .store
                .record_failure(
                    claimed.claim,
                    "it cannot be read",
                    true,
                    dispatcher.clock.now(),
                )
                .await;
            match failed {
                Ok(FailOutcome::Dead) => report_dead(
                    &dispatcher.metrics,
                    DeadMessage {
                        sid: claimed.sid,
                        reason: DeadReason::Unreadable,
                    },
                ),
                Ok(_) => {}
                Err(error) => dispatcher.monitor.report_failure("record_failure", &error),
            }
        }
    }
}
