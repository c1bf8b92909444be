//! Calling back what Twilio holds until its time, of users who have opted out since.

use std::time::Duration;

use super::Delivery;
use crate::message::MessageStatus;
use crate::store::{News, ScheduledMessage};
use crate::twilio::{Repeat, RestError};

/// How often the store is asked without a reason: a command or another machine may have opted somebody out.
const PAUSE: Duration = Duration::from_secs(30);
/// Asked for at once.
const PAGE: usize = 64;

impl Delivery {
    /// Calls back what is not wanted any more, for as long as it is polled.
    pub(crate) async fn call_back(&self) {
        loop {
            let mut last = 0;
            while let Ok(page) = self.asked("unwanted", self.store.unwanted(last, PAGE).await)
                && let Some(newest) = page.last()
            {
                last = newest.id;
                for message in page {
                    self.call_one_back(message).await;
                }
            }
            let _ = tokio::time::timeout(PAUSE, self.opted_out.notified()).await;
        }
    }

    async fn call_one_back(&self, message: ScheduledMessage) {
        let ScheduledMessage {
            id,
            account,
            slot,
            sid,
        } = message;
        let Some(route) = self.routes.of(account) else {
            return;
        };
        let credentials = self.keyring.credentials(account, slot);
        let messages = route.client.messages(account, &credentials);
        let status = match messages.cancel(sid).await {
            Ok(message) => message.status,
            // It may have left, or been called back from elsewhere.
            Err(error) if error.repeat() == Repeat::Never => match messages.fetch(sid).await {
                Ok(message) if message.status != MessageStatus::Scheduled => message.status,
                _ => return self.not_called_back(id, &error),
            },
            Err(error) => return self.not_called_back(id, &error),
        };
        let news = News {
            account,
            sid,
            reply: None,
            status,
            error_code: None,
            us: None,
            service: None,
            user: None,
            at: self.clock.now(),
        };
        let _ = self.asked("news", self.store.news(news).await);
    }

    fn not_called_back(&self, id: i64, error: &RestError) {
        if let Some(suppressed) = self.warnings.pass() {
            tracing::warn!(
                outbound_id = id,
                suppressed,
                "a scheduled message to somebody who has opted out could not be called back yet: {error}"
            );
        }
    }
}
