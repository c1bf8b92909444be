//! [`EventWorker`]: claims events and posts them to the service.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::delivery_status::DeliveryStatus;
use crate::clock::{Clock, Timestamp, after};
use crate::form::FormParams;
use crate::forward::{EventDelivery, EventService, forwarded_json};
use crate::handler::Files;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::retry_delay::retry_delay;
use crate::store::{ClaimedEvent, EventContent, EventMessage, ExpiryReport, Store};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreReport, Throttle, catch_panic};

/// Maximum number of concurrent requests.
const MAX_CONCURRENT_REQUESTS: usize = 16;
/// Interval of polling the store. Events are written by every part of the server, and by other processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an event that the service has not taken is dropped.
const LIFETIME: Duration = Duration::from_hours(24);
/// Pause after the first delivery that failed.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Maximum `Retry-After` that is honored: one wrong response must not stop the delivery for long.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Arguments of [`EventWorker::new`].
pub(crate) struct EventParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_report: StoreReport,
    pub(crate) service: EventService,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    pub(crate) status: Arc<DeliveryStatus>,
}

/// Worker that delivers events.
pub(crate) struct EventWorker {
    parts: EventParts,
    /// IDs of the events that are being delivered.
    running: Mutex<BTreeSet<i64>>,
    progress: Mutex<Progress>,
    /// Notified when a delivery has ended: the next event of its user may be due.
    ended: Notify,
    failures: Throttle,
}

/// Progress of the search for due events.
#[derive(Default)]
struct Progress {
    /// Position of the next search.
    position: String,
    /// Time of the last expiry, in real time: it limits the load on the store.
    expired_at: Option<Instant>,
    /// Time until which the service has asked to wait.
    paused_until: Option<Timestamp>,
}

impl EventWorker {
    pub(crate) fn new(parts: EventParts) -> Self {
        Self {
            parts,
            running: Mutex::default(),
            progress: Mutex::default(),
            ended: Notify::new(),
            failures: Throttle::every(Duration::from_mins(1)),
        }
    }

    /// Delivers events until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS));
        loop {
            // Wait until a request can start: an event that is claimed before that would wait here, although another
            // server could deliver it.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            drop(permit);
            // In a task of its own, so that a shutdown does not cancel it between the claim and its deliveries.
            let (worker, task_permits) = (self.clone(), permits.clone());
            let tasks = &self.parts.tasks;
            let round = tasks.spawn(async move { worker.run_round(&task_permits).await });
            let pause = match round.await {
                Ok(pause) => pause.unwrap_or(POLL_INTERVAL),
                Err(error) => match error.try_into_panic() {
                    // For the supervisor, which restarts this task.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return,
                },
            };
            let _ = tokio::time::timeout(pause, self.ended.notified()).await;
        }
    }

    /// Deletes old events, and starts to deliver due ones. Returns the pause before the next round.
    async fn run_round(self: &Arc<Self>, permits: &Arc<Semaphore>) -> Result<Duration, ()> {
        let parts = &self.parts;
        let started = Instant::now();
        let now = parts.clock.now();
        self.expire(now).await?;
        let (position, is_paused) = {
            let progress = self.progress.lock().ignore_poison();
            let is_paused = progress.paused_until.is_some_and(|until| now < until);
            (progress.position.clone(), is_paused)
        };
        if parts.status.is_stopped() || is_paused {
            return Ok(POLL_INTERVAL);
        }
        let free_permits = permits.available_permits();
        let running: Vec<_> = {
            let running = self.running.lock().ignore_poison();
            running.iter().copied().collect()
        };
        let claimed = parts
            .store
            .claim_events(&position, free_permits, running, now)
            .await;
        let claimed = parts.store_report.record_error("claim_events", claimed)?;
        let has_more_users = claimed.next.is_some();
        self.progress.lock().ignore_poison().position = claimed.next.unwrap_or_default();
        let has_claimed = !claimed.events.is_empty();
        for event in claimed.events {
            self.running.lock().ignore_poison().insert(event.id);
            let (worker, permits) = (self.clone(), permits.clone());
            // Tracked, so that a shutdown waits for the request and its outcome.
            parts.tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                worker.deliver_or_set_aside(event).await;
                worker.ended.notify_one();
            });
        }
        Ok(if has_claimed || !position.is_empty() && !has_more_users {
            Duration::ZERO
        } else if has_more_users {
            // Many users wait and none of these is due. The pause leaves the store to the messages.
            ExpiryReport::pause_after(started.elapsed())
        } else {
            POLL_INTERVAL.max(ExpiryReport::pause_after(started.elapsed()))
        })
    }

    async fn expire(&self, now: Timestamp) -> Result<(), ()> {
        {
            let mut progress = self.progress.lock().ignore_poison();
            let last = progress.expired_at;
            if last.is_some_and(|last| last.elapsed() < POLL_INTERVAL) {
                return Ok(());
            }
            progress.expired_at = Some(Instant::now());
        }
        let parts = &self.parts;
        let before = now.checked_sub(LIFETIME).unwrap_or(now);
        let expired = parts.store.expire_events(before, now).await;
        let expired = parts.store_report.record_error("expire_events", expired)?;
        if expired.dropped > 0 {
            parts.metrics.events_dropped(expired.dropped);
            tracing::error!(
                dropped = expired.dropped,
                "dropped events that the service at handler.events_url has not taken for 24 hours"
            );
        }
        if expired.has_more {
            self.progress.lock().ignore_poison().expired_at = None;
        }
        Ok(())
    }

    /// Delivers an event. After a panic it is retried as after a failure, so that it does not stay claimed.
    async fn deliver_or_set_aside(&self, event: ClaimedEvent) {
        let (id, attempt) = (event.id, event.attempt);
        let delivered = catch_panic(&self.parts.metrics, "events", self.deliver(event));
        if delivered.await.is_none() {
            let not_before = after(
                self.parts.clock.now(),
                retry_delay(attempt, FIRST_RETRY_DELAY),
            );
            self.release(id, not_before).await;
        }
        self.running.lock().ignore_poison().remove(&id);
    }

    async fn deliver(&self, event: ClaimedEvent) {
        let parts = &self.parts;
        let name = event.name();
        let mut body = format!(
            r#"{{"type":"{}","id":"{name}","at":"{}","data":"#,
            event.kind.as_str(),
            event.at
        )
        .into_bytes();
        match event.data {
            EventContent::Json(data) => body.extend(data.into_bytes()),
            EventContent::Message(message) => body.extend(self.message_json(&message).await),
        }
        body.push(b'}');
        let (id, attempt) = (event.id, event.attempt);
        match parts.service.post(&name, body).await {
            EventDelivery::Delivered => {
                parts.metrics.event_delivery("delivered");
                if parts.status.record(false) {
                    tracing::info!("the service at handler.events_url takes events again");
                }
                self.delete(id).await;
            }
            EventDelivery::Gone => {
                parts.metrics.event_delivery("gone");
                parts.metrics.set_events_stopped(true);
                if parts.status.stop() {
                    tracing::error!(
                        "the service at handler.events_url responded with 410, so no more events are sent to it; they wait for up to 24 hours, until a reload of the settings or a restart"
                    );
                }
                self.release(id, parts.clock.now()).await;
            }
            EventDelivery::Failed {
                reason,
                retry_after,
            } => {
                parts.metrics.event_delivery("retry");
                if parts.status.record(true)
                    && let Some(suppressed) = self.failures.try_log()
                {
                    tracing::warn!(
                        suppressed,
                        reason,
                        "the service at handler.events_url has not taken an event; it is sent again for up to 24 hours"
                    );
                }
                let now = parts.clock.now();
                let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                if !asked.is_zero() {
                    self.progress.lock().ignore_poison().paused_until = Some(after(now, asked));
                }
                self.release(
                    id,
                    after(now, retry_delay(attempt, FIRST_RETRY_DELAY).max(asked)),
                )
                .await;
            }
        }
    }

    /// Returns a message as JSON, as the service at `handler.forward_url` gets it.
    async fn message_json(&self, message: &EventMessage) -> Vec<u8> {
        let params = message.params.as_ref();
        let params = params.and_then(|text| FormParams::parse(text.0.as_bytes(), usize::MAX).ok());
        let parsed =
            params.and_then(|params| InboundMessage::parse(params, message.received_at).ok());
        let Some(parsed) = parsed else {
            // Retention has deleted the content. The service still learns that the message came.
            let rest = serde_json::json!({
                "message_sid": message.sid.as_str(), "account_sid": message.account.as_str(),
                "from": message.user.as_str(), "to": message.sender.as_str(), "body": null,
                "received_at": message.received_at.to_string(),
            });
            return rest.to_string().into_bytes();
        };
        let files = self.parts.files.attachments(&parsed, message.auth_token);
        let mut links = Vec::with_capacity(parsed.media.len());
        for index in 0..parsed.media.len() {
            // Without a link the service still gets Twilio's URL.
            links.push(files.link(index).await.ok());
        }
        forwarded_json(&parsed, &links, message.attempt)
    }

    /// Deletes a delivered event, and retries while the store is unavailable: otherwise it would be sent again.
    async fn delete(&self, id: i64) {
        let parts = &self.parts;
        loop {
            let deleted = parts.store.delete_event(id).await;
            if parts
                .store_report
                .record_error("delete_event", deleted)
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn release(&self, id: i64, not_before: Timestamp) {
        let released = self.parts.store.retry_event(id, not_before).await;
        // On an error the claim ends by itself.
        let _ = self
            .parts
            .store_report
            .record_error("retry_event", released);
    }
}
