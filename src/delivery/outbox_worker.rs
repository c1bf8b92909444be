//! [`OutboxWorker`]: claims the messages of the outbox and starts their calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::lookup::MessageLookup;
use super::parts::{DeliveryParts, UnsentHook};
use super::send::{CALLBACK_GRACE, RestSender};
use crate::clock::{Clock, after};
use crate::store::{OutboundMessage, SendOutcome, Store};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{OptOutLog, StoreReport, catch_panic};

/// Maximum number of concurrent calls.
const MAX_CONCURRENT_SENDS: usize = 16;
/// Interval of polling the store without a notification: another process may have queued a message.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Worker that sends the messages of the outbox.
pub(crate) struct OutboxWorker {
    store: Arc<dyn Store>,
    store_report: Arc<StoreReport>,
    sender: RestSender,
    lookup: MessageLookup,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Maximum time that a part of a reply waits for the delivery of the part before.
    wait_for_delivery: Duration,
    tasks: TaskTracker,
    /// Notified when a message was queued.
    outbox: Arc<Notify>,
    opt_out_log: Arc<OptOutLog>,
    on_unsent: Option<UnsentHook>,
}

impl OutboxWorker {
    pub(crate) fn new(parts: &DeliveryParts) -> Self {
        Self {
            store: parts.store.clone(),
            store_report: parts.store_report.clone(),
            sender: RestSender::new(parts),
            lookup: MessageLookup::new(parts),
            clock: parts.clock.clone(),
            metrics: parts.metrics.clone(),
            wait_for_delivery: parts.policy.wait_for_delivery,
            tasks: parts.tasks.clone(),
            outbox: parts.outbox.clone(),
            opt_out_log: parts.opt_out_log.clone(),
            on_unsent: parts.on_unsent.clone(),
        }
    }

    /// Clears the caches of templates and resources, and ends pauses, after the emulator was reset.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(crate) fn reset(&self) {
        self.sender.reset();
    }

    /// Sends messages until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_SENDS));
        loop {
            // Wait until a call can start. A message claimed before that would wait here, although another
            // server could send it.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            // Release it before the poll: each claimed message acquires its own permit.
            drop(permit);
            // In a task of its own, so that a shutdown does not cancel it: a claim that is committed after its future was
            // dropped would have no task, and its messages would count as unknown.
            let (worker, task_permits) = (self.clone(), permits.clone());
            let poll = self
                .tasks
                .spawn(async move { worker.poll_once(&task_permits).await });
            let has_more = match poll.await {
                Ok(polled) => polled.unwrap_or(false),
                Err(error) => match error.try_into_panic() {
                    // For the supervisor, which restarts this task.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return,
                },
            };
            if !has_more {
                let _ = tokio::time::timeout(POLL_INTERVAL, self.outbox.notified()).await;
            }
        }
    }

    /// Claims and sends due messages, and looks up unknown ones. Returns whether there may be more to send.
    async fn poll_once(self: &Arc<Self>, permits: &Arc<Semaphore>) -> Result<bool, ()> {
        let now = self.clock.now();
        crate::panic_point!("outbox.poll");
        let free_permits = permits.available_permits();
        // The messages of a paused account wait in the store until the end of its pause.
        for account in self.sender.end_pauses_of_old_keys() {
            let ended = self.store.end_retry_delays(account, now).await;
            self.store_report.record_error("end_retry_delays", ended)?;
        }
        let wait = self.wait_for_delivery;
        let claimed = self.store.claim_with_wait(free_permits, wait, now).await;
        let outbox = self.store_report.record_error("claim", claimed)?;
        let claimed = outbox.messages;
        // A stopped message makes way for the next one of its user.
        let has_more =
            !claimed.is_empty() || !outbox.suppressed.is_empty() || !outbox.new_owner.is_empty();
        // Before the lookups: if claiming those fails, these must not be left without a task, since no other process
        // takes over what this one has claimed.
        for message in claimed {
            let (worker, permits) = (self.clone(), permits.clone());
            // Tracked, so that a shutdown waits for the call and its outcome.
            self.tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                worker.send_or_set_aside(message).await;
                worker.outbox.notify_one();
            });
        }
        for message in &outbox.suppressed {
            self.opt_out_log.explain_outbound(message).await;
        }
        for message in &outbox.new_owner {
            self.opt_out_log.explain_new_owner(message);
        }
        let unknown = self.store_report.record_error(
            "claim_lookups",
            self.store.claim_lookups(MAX_CONCURRENT_SENDS, now).await,
        )?;
        if !unknown.is_empty() {
            let worker = self.clone();
            // One after the other: of two messages with the same text, the second must not find the list's entry that
            // the first has just been matched with.
            self.tasks.spawn(async move {
                for message in unknown {
                    worker.look_up_or_set_aside(message).await;
                }
            });
        }
        Ok(has_more)
    }

    /// Sends a message. A panic makes its result unknown, because Twilio may have accepted it; otherwise it would stay
    /// `sending` and block the later messages to its user.
    async fn send_or_set_aside(&self, message: OutboundMessage) {
        let id = message.id;
        let sent = async {
            let outcome = self.sender.send(&message).await;
            self.record_outcome(id, outcome).await;
        };
        let sent = catch_panic(&self.metrics, "outbox", sent);
        if sent.await.is_none() {
            let unknown = SendOutcome::Unknown {
                lookup_at: after(self.clock.now(), CALLBACK_GRACE),
                looked_up: false,
            };
            self.record_outcome(id, unknown).await;
        }
    }

    /// Looks a message of unknown result up. After a panic it waits for the operator, because every further search
    /// would panic as well.
    async fn look_up_or_set_aside(&self, message: OutboundMessage) {
        let id = message.id;
        let looked_up = async {
            let outcome = self.lookup.look_up(&message).await;
            self.record_outcome(id, outcome).await;
            self.outbox.notify_one();
        };
        let looked_up = catch_panic(&self.metrics, "outbox", looked_up);
        if looked_up.await.is_none() {
            self.record_outcome(id, SendOutcome::Held).await;
        }
    }

    /// Records the outcome of a call, and retries while the store is unavailable.
    async fn record_outcome(&self, id: i64, outcome: SendOutcome) {
        // Before it is recorded: a task that waits for the end of the message may read the reason next.
        if let (Some(hook), Some(reason)) = (&self.on_unsent, unsent_reason(&outcome)) {
            hook(id, reason).await;
        }
        // Only this process knows the outcome. If it ends before the store is back, the message becomes unknown.
        loop {
            let result = self
                .store
                .record_outcome(id, outcome.clone(), self.clock.now())
                .await;
            if self
                .store_report
                .record_error("record_outcome", result)
                .is_ok()
            {
                self.metrics.reply(&outcome);
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Returns the reason why a message is not sent, unless it may still be.
fn unsent_reason(outcome: &SendOutcome) -> Option<String> {
    match outcome {
        SendOutcome::Failed { code, reason } => Some(match code {
            Some(code) => format!("{reason}: {} ({})", code.meaning_or_link(), code.0),
            None => reason.to_string(),
        }),
        SendOutcome::Held => {
            Some("its call had no result, and Twilio's list does not have it".to_owned())
        }
        _ => None,
    }
}
