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
mod handoff;
mod request;
mod response;
mod surrogates;
mod unknown_keys;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use sha2::Sha256;

use self::error::ForwardError;
use self::request::ForwardedMessage;
use crate::clock::Clock;
use crate::handler::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::tls;
use replyhook_core::Secret;

#[cfg(feature = "app")]
pub(crate) use self::handoff::parse_ttl;
pub(crate) use self::unknown_keys::UnknownKeyLog;

/// Timeout of a connection attempt. The response may take as long as a handler may run.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which an unused connection is closed.
// Node and uvicorn close idle connections after 5 s, other servers later. Close first: a request on a connection that
// the service is just closing fails, and is not repeated here.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Prefix of a Standard Webhooks secret.
const SECRET_PREFIX: &str = "whsec_";
/// Length of a key in bytes, as Standard Webhooks prescribes it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The URL of your service, and the key that signs requests to it.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::forward::{ForwardSetupError, ForwardTarget};
///
/// let secret = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
/// assert!(ForwardTarget::parse("http://localhost:3000/message", &secret).is_ok());
/// let error = ForwardTarget::parse("http://localhost:3000/message", &Secret::new("password"));
/// assert_eq!(error.unwrap_err(), ForwardSetupError::Secret);
/// ```
#[derive(Clone)]
pub struct ForwardTarget {
    url: reqwest::Url,
    key: Hmac<Sha256>,
}

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

/// The reason why a forward handler cannot be created.
///
/// See [`ForwardTarget`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardSetupError {
    /// The URL is not an http or https URL with a host.
    #[error("is not an http or https URL with a host, as in http://localhost:3000/message")]
    Url,
    /// The secret is not `whsec_` and the base64 of 24 to 64 bytes.
    #[error(
        "is not whsec_ and the base64 of 24 to 64 bytes: make one with  echo whsec_$(openssl rand -base64 32)"
    )]
    Secret,
    /// The HTTP client cannot be created.
    #[error("cannot be called: the HTTP client could not be created")]
    Client,
}

impl ForwardTarget {
    /// Reads the URL of the service, and the secret (`whsec_…`) that it shares with this server.
    ///
    /// # Errors
    /// [`ForwardSetupError::Url`] or [`ForwardSetupError::Secret`].
    pub fn parse(url: &str, secret: &Secret) -> Result<Self, ForwardSetupError> {
        let url = reqwest::Url::parse(url).map_err(|_| ForwardSetupError::Url)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(ForwardSetupError::Url);
        }
        let key = secret.expose().trim().strip_prefix(SECRET_PREFIX);
        let key = key.and_then(|key| STANDARD.decode(key).ok());
        let key = key.filter(|key| KEY_BYTES.contains(&key.len()));
        let key = key.ok_or(ForwardSetupError::Secret)?;
        let key = Hmac::new_from_slice(&key).expect("HMAC takes a key of any length");
        Ok(Self { url, key })
    }
}

impl Forward {
    /// Creates a handler that posts messages to a service.
    ///
    /// # Errors
    /// [`ForwardSetupError::Client`] if the HTTP client cannot be created.
    pub fn new(target: ForwardTarget, clock: Arc<dyn Clock>) -> Result<Self, ForwardSetupError> {
        tls::install_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            // A redirect is an error: another host must not get the message, and a 302 would turn the POST into a GET.
            .redirect(reqwest::redirect::Policy::none())
            // Not even a proxy of the environment: the message goes to the configured URL and nowhere else.
            .no_proxy()
            .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| ForwardSetupError::Client)?;
        Ok(Self {
            client,
            target,
            clock,
            unknown_keys: Arc::default(),
        })
    }

    async fn post(&self, cx: &Context, message: &InboundMessage) -> Result<Reply, ForwardError> {
        let links = request::create_links(cx, message).await;
        let body = ForwardedMessage::new(cx, message, &links).to_json();
        let id = message.message_sid.as_str();
        let timestamp = self.clock.now().as_second().to_string();
        // Clone the keyed state: the key schedule is computed once, in `ForwardTarget::parse`.
        let mut mac = self.target.key.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body] {
            mac.update(part);
        }
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let request = self
            .client
            .post(self.target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", format!("v1,{signature}"))
            .header("replyhook-attempt", cx.attempt())
            .body(body);
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

// By hand, without fields: the URL may contain a password, and the key is a secret.
impl fmt::Debug for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardTarget").finish_non_exhaustive()
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}
