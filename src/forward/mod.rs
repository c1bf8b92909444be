//! The forward handler: posts each message as signed JSON to your HTTP service, and sends its response as the reply.
//!
//! Requests are signed as *Standard Webhooks*, for which many languages have a library. `webhook-id` is the
//! `MessageSid`, and `webhook-timestamp` the Unix time of this attempt. `webhook-signature` is `v1,` and the base64 of
//! the HMAC-SHA256 over `id.timestamp.body`. `replyhook-attempt` is the number of the attempt, from 1. This handler
//! does not retry: Twilio and the journal do.
//!
//! | the service responds | the user gets |
//! |---|---|
//! | 202, 204, or 200 with an empty body, `null`, or an object without our keys | nothing |
//! | 200 `text/plain` | that text |
//! | 200 `application/json` | the message `{"body": "…", "media": ["https://…"]}`, in which either key may be missing; or the messages of `{"messages": […]}`, which may be empty |
//! | anything else | nothing: the handler fails |
//!
//! Source: the Standard Webhooks specification, 1.0.

mod choices;
mod error;
#[cfg(feature = "app")]
mod event_service;
mod handoff;
mod request;
mod response;
mod surrogates;
mod target;
mod unknown_keys;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

#[cfg(feature = "app")]
pub(crate) use self::event_service::{EventDelivery, EventService, forwarded_json};

pub use self::target::{ForwardSetupError, ForwardTarget};

use self::error::ForwardError;
#[cfg(feature = "app")]
pub(crate) use self::handoff::parse_ttl;
use self::request::ForwardedMessage;
#[cfg(feature = "app")]
pub(crate) use self::response::{MESSAGE_KEYS, read_message};
#[cfg(feature = "app")]
pub(crate) use self::surrogates::replace_unpaired_surrogates;
use self::target::http_client;
pub(crate) use self::unknown_keys::UnknownKeyLog;
use crate::clock::Clock;
use crate::handler::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;

/// A handler that gets each reply from your HTTP service.
///
/// It has one HTTP client for all messages, which reuses connections.
///
/// ```no_run
/// # #[cfg(all(feature = "route", feature = "axum"))]
/// # fn bot() -> Result<impl replyhook::Handler, replyhook::forward::ForwardSetupError> {
/// use std::sync::Arc;
/// use replyhook::forward::{Forward, ForwardTarget};
/// use replyhook::route::{Router, text};
/// use replyhook::{Secret, SystemClock};
///
/// let secret = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
/// let target = ForwardTarget::parse("http://localhost:3000/message", &secret)?;
/// let service = Forward::new(target, Arc::new(SystemClock))?;
/// let bot = Router::new().on(text("ping"), "pong").on_handler(!text("ping"), service);
/// # Ok(bot) }
/// ```
#[derive(Clone)]
pub struct Forward {
    client: reqwest::Client,
    target: ForwardTarget,
    clock: Arc<dyn Clock>,
    unknown_keys: Arc<UnknownKeyLog>,
}

impl Forward {
    /// Creates a handler that posts messages to a service.
    ///
    /// # Errors
    /// [`ForwardSetupError::Client`] if the HTTP client cannot be created.
    pub fn new(target: ForwardTarget, clock: Arc<dyn Clock>) -> Result<Self, ForwardSetupError> {
        let client = http_client()?;
        Ok(Self {
            client,
            target,
            clock,
            unknown_keys: Arc::default(),
        })
    }

    async fn post(&self, cx: &Context, message: &InboundMessage) -> Result<Reply, ForwardError> {
        let links = request::create_links(cx, message).await;
        let body = ForwardedMessage::new(cx.attempt(), message, &links).to_json();
        let id = message.message_sid.as_str();
        let request = self
            .target
            .request(&self.client, &*self.clock, id, body)
            .header("replyhook-attempt", cx.attempt());
        let failed = |error: reqwest::Error| ForwardError::from_send_error(&error);
        let mut received = request.send().await.map_err(failed)?;
        let response = response::read(&mut received).await?;
        let message_sid = message.message_sid;
        if response.is_foreign {
            if let Some(keys) = self.unknown_keys.record_new_shape(response.unknown_keys) {
                tracing::warn!(%message_sid, keys, "the service's response has none of the keys body, media, messages, choices, content, location and handoff, so the user gets no reply; logged once per set of keys");
            }
            return Ok(response.reply);
        }
        for key in self.unknown_keys.record_new(response.unknown_keys) {
            tracing::warn!(%message_sid, key, "ignored an unknown key in the service's response; logged once per key");
        }
        for part in self.unknown_keys.record_new_parts(response.left_out) {
            tracing::error!(%message_sid, part, "left out a part of the service's response that is invalid, and sent the rest; logged once per part");
        }
        if let Some(reason) = response.invalid_choices {
            tracing::error!(%message_sid, reason, "the service's choices are invalid; the user gets the question as a text, and its answer is an ordinary text");
        }
        Ok(response.reply)
    }
}

impl Handler for Forward {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            let reply = self.post(&cx, &message).await;
            reply.map_err(HandlerError::new)
        })
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}
