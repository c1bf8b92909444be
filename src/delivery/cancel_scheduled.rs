//! Cancellation of scheduled messages whose users have opted out since, or whose addresses are of other users now.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::parts::DeliveryParts;
use super::route::ApiRoutes;
use crate::clock::Clock;
use crate::message::MessageStatus;
use crate::reloadable::Reloadable;
use crate::store::{ScheduledMessage, StatusEvent, Store};
use crate::telemetry::{StoreReport, Throttle};
use crate::twilio::{Keyring, RestError, RetryAdvice};

/// Interval of polling the store without a notification: a command or another server may have recorded an opt-out.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of messages in one query.
const PAGE_SIZE: usize = 64;

/// Cancels scheduled messages that must not reach their recipients any more.
pub(crate) struct ScheduledCancellation {
    store: Arc<dyn Store>,
    store_report: Arc<StoreReport>,
    routes: Arc<ApiRoutes>,
    keyring: Reloadable<Keyring>,
    clock: Arc<dyn Clock>,
    /// Notified when a user has opted out.
    opted_out: Arc<Notify>,
    warnings: Throttle,
}

impl ScheduledCancellation {
    pub(crate) fn new(parts: &DeliveryParts) -> Self {
        Self {
            store: parts.store.clone(),
            store_report: parts.store_report.clone(),
            routes: parts.routes.clone(),
            keyring: parts.keyring.clone(),
            clock: parts.clock.clone(),
            opted_out: parts.opted_out.clone(),
            warnings: Throttle::new(10),
        }
    }

    /// Cancels messages until it is dropped.
    pub(crate) async fn run(&self) {
        loop {
            // By id, so that a message that cannot be canceled now does not stop those after it.
            let mut last_id = 0;
            while let Ok(page) = self.store_report.record_error(
                "scheduled_to_cancel",
                self.store.scheduled_to_cancel(last_id, PAGE_SIZE).await,
            ) && let Some(last_message) = page.last()
            {
                last_id = last_message.id;
                for message in page {
                    self.cancel_one(message).await;
                }
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, self.opted_out.notified()).await;
        }
    }

    /// Cancels one message and records its status.
    async fn cancel_one(&self, message: ScheduledMessage) {
        let ScheduledMessage {
            id,
            account,
            auth_token,
            sid,
        } = message;
        let Some((route, credentials)) =
            self.routes
                .authenticated(&self.keyring.load(), account, auth_token)
        else {
            return;
        };
        let messages = route.client.messages(account, &credentials);
        let status = match messages.cancel(sid).await {
            Ok(message) => message.status,
            // Twilio does not cancel a message that was sent, or that another server has canceled. Its status shows
            // which.
            Err(error) if error.retry_advice() == RetryAdvice::Never => {
                match messages.fetch(sid).await {
                    Ok(message) if message.status != MessageStatus::Scheduled => message.status,
                    _ => return self.log_failed_cancellation(id, &error),
                }
            }
            Err(error) => return self.log_failed_cancellation(id, &error),
        };
        // Like a status callback: the status leaves `scheduled`, so the message is not selected again. An error of the
        // store is reported, and the next poll repeats this.
        let event = StatusEvent {
            account,
            sid,
            outbound: None,
            status,
            error_code: None,
            sender: None,
            service: None,
            user: Vec::new(),
            at: self.clock.now(),
        };
        let _ = self
            .store_report
            .record_error("apply_status", self.store.apply_status(event).await);
    }

    /// Logs a failed cancellation, which the next poll repeats.
    fn log_failed_cancellation(&self, id: i64, error: &RestError) {
        if let Some(suppressed) = self.warnings.try_log() {
            tracing::warn!(
                outbound_id = id,
                suppressed,
                %error,
                "could not cancel a scheduled message whose user has opted out, or whose address is of another user now; trying again"
            );
        }
    }
}
