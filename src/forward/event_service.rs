//! The service at `handler.events_url`: its requests, and the meaning of its responses.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;

use super::error::ForwardError;
use super::request::ForwardedMessage;
use super::target::{ForwardSetupError, ForwardTarget, http_client};
use crate::clock::Clock;
use crate::message::InboundMessage;

/// Timeout of a request, from its start to the end of the response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of bytes of a response that are read, so that its connection can be used again.
const MAX_READ_BYTES: usize = 16 * 1024;

/// Client of the service that gets events.
pub(crate) struct EventService {
    client: reqwest::Client,
    target: ForwardTarget,
    clock: Arc<dyn Clock>,
}

/// Outcome of one delivery of an event.
pub(crate) enum EventDelivery {
    /// The service has taken the event.
    Delivered,
    /// The service wants no more events: 410.
    Gone,
    /// The service has not taken the event.
    Failed {
        /// Reason, without content and URL.
        reason: String,
        /// Time that the service asks to wait.
        retry_after: Option<Duration>,
    },
}

impl EventService {
    /// Creates a client.
    ///
    /// # Errors
    /// [`ForwardSetupError::Client`] if the HTTP client cannot be created.
    pub(crate) fn new(
        target: ForwardTarget,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ForwardSetupError> {
        Ok(Self {
            client: http_client()?,
            target,
            clock,
        })
    }

    /// Posts an event. `id` is the same for every delivery of the event.
    pub(crate) async fn post(&self, id: &str, body: Vec<u8>) -> EventDelivery {
        let request = self.target.request(&self.client, &*self.clock, id, body);
        let mut response = match request.timeout(REQUEST_TIMEOUT).send().await {
            Ok(response) => response,
            Err(error) => {
                return EventDelivery::Failed {
                    reason: ForwardError::from_send_error(&error).to_string(),
                    retry_after: None,
                };
            }
        };
        let status = response.status();
        if status.is_success() {
            let mut read = 0;
            while let Ok(Some(chunk)) = response.chunk().await {
                read += chunk.len();
                if read > MAX_READ_BYTES {
                    break;
                }
            }
            return EventDelivery::Delivered;
        }
        if status == StatusCode::GONE {
            return EventDelivery::Gone;
        }
        let error = if status.is_redirection() {
            ForwardError::EventRedirect(status.as_u16())
        } else {
            ForwardError::Status(status.as_u16())
        };
        EventDelivery::Failed {
            reason: error.to_string(),
            retry_after: retry_after(&response),
        }
    }
}

/// Reads `Retry-After` in seconds. Its other form, a date, depends on two clocks and is not read.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Writes a message as JSON, as the service at `handler.forward_url` gets it.
pub(crate) fn forwarded_json(
    message: &InboundMessage,
    links: &[Option<String>],
    attempt: u32,
) -> Vec<u8> {
    ForwardedMessage::new(attempt, message, links).to_json()
}
