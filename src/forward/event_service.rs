//! The service at `handler.events_url`: its requests, and the meaning of its responses.

use std::sync::Arc;
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822;

use super::error::ForwardError;
use super::request::ForwardedMessage;
use super::target::{ForwardSetupError, ForwardTarget, http_client};
use crate::clock::{Clock, Timestamp};
use crate::message::InboundMessage;
use crate::reloadable::Reloadable;

/// Timeout of a request, from its start to the end of the response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of bytes of a response that are read, so that its connection can be used again.
const MAX_READ_BYTES: usize = 16 * 1024;

/// Client of the service that gets events.
pub(crate) struct EventService {
    client: reqwest::Client,
    /// `None` if `handler.events_url` is empty.
    target: Reloadable<Option<ForwardTarget>>,
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
        target: Reloadable<Option<ForwardTarget>>,
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
        let target = self.target.load();
        let Some(target) = &*target else {
            return EventDelivery::Failed {
                reason: "handler.events_url is empty".to_owned(),
                retry_after: None,
            };
        };
        let request = target.request(&self.client, &*self.clock, id, body);
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
            retry_after: retry_after(response.headers(), self.clock.now()),
        }
    }
}

/// Reads `Retry-After`: seconds, or a date. `now` is the time of a response without `Date`.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A date of HTTP is one of mail with the zone GMT.
    let date = |text| Some(rfc2822::parse(text).ok()?.timestamp());
    let until = date(value)?;
    // By the service's own clock, which may differ from this one.
    let now = text(DATE).and_then(date).unwrap_or(now);
    Duration::try_from(until.duration_since(now)).ok()
}

/// Writes a message as JSON, as the service at `handler.forward_url` gets it.
pub(crate) fn forwarded_json(
    message: &InboundMessage,
    links: &[Option<String>],
    attempt: u32,
) -> Vec<u8> {
    ForwardedMessage::new(attempt, message, links).to_json()
}
