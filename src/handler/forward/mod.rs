//! A bot that is a service of yours, in any language: each message is posted to it as JSON, signed, and what it answers is
//! the reply.
//!
//! The request is signed by the *Standard Webhooks* convention, for which every language has a library: `webhook-id` is the
//! `MessageSid`, `webhook-timestamp` the second of this attempt, `webhook-signature` `v1,` and the HMAC-SHA256 over
//! `id.timestamp.body`. `replyhook-attempt` counts attempts at the message. There are no retries here: Twilio and the journal
//! have theirs.
//!
//! | the service answers | the user gets |
//! |---|---|
//! | 204, or 200 with an empty body | nothing |
//! | 200 `text/plain` | that text |
//! | 200 `application/json` | `{"body": "…", "media": ["https://…"]}`, of which either may be missing, or `{"messages": […]}` of such, which may be empty |
//! | anything else | the handler has failed |
//!
//! Source: the Standard Webhooks specification, 1.0.

mod answer;
mod error;
mod question;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use sha2::Sha256;

use self::answer::Unread;
use self::error::ForwardError;
use self::question::Question;
use super::{Context, Handler, HandlerError};
use crate::clock::Clock;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::secret::Secret;
use crate::tls;

/// For a connection; the answer has as long as a handler has.
const CONNECT: Duration = Duration::from_secs(5);
/// Node and uvicorn close what is idle for five seconds, and others later: ours are closed first.
const IDLE: Duration = Duration::from_secs(4);
/// How a secret of the convention begins.
const SECRET_PREFIX: &str = "whsec_";
/// A key that is shorter is guessed sooner than the convention allows.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A service of yours: where it is, and what it is asked with.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::handler::{ForwardSetupError, ForwardTarget};
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

/// Asks a service of yours. One client for all messages, so that connections are used again.
///
/// ```no_run
/// # #[cfg(all(feature = "route", feature = "axum"))]
/// # fn bot() -> Result<impl replyhook::Handler, replyhook::handler::ForwardSetupError> {
/// use std::sync::Arc;
/// use replyhook::handler::{Forward, ForwardTarget};
/// use replyhook::route::{Router, text};
/// use replyhook::{Secret, SystemClock};
///
/// let secret = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
/// let target = ForwardTarget::parse("http://localhost:3000/message", &secret)?;
/// let service = Forward::new(target, Arc::new(SystemClock))?;
/// let bot = Router::new().on(text("ping"), "pong").hand_to(!text("ping"), service);
/// # Ok(bot) }
/// ```
#[derive(Clone)]
pub struct Forward {
    client: reqwest::Client,
    target: ForwardTarget,
    clock: Arc<dyn Clock>,
    unread: Arc<Unread>,
}

/// Why there is no such handler.
///
/// When it comes: see [`ForwardTarget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardSetupError {
    /// The URL leads nowhere.
    #[error("is not an http or https URL with a host, as in http://localhost:3000/message")]
    Url,
    /// The secret is not of the convention.
    #[error(
        "is not whsec_ and the base64 of 24 to 64 bytes: make one with  echo whsec_$(openssl rand -base64 32)"
    )]
    Secret,
    /// No client can be made.
    #[error("cannot be called from here")]
    Client,
}

impl ForwardTarget {
    /// The service at `url`, which knows `secret` (`whsec_…`).
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
    /// A handler that posts to a service.
    ///
    /// # Errors
    /// [`ForwardSetupError::Client`].
    pub fn new(target: ForwardTarget, clock: Arc<dyn Clock>) -> Result<Self, ForwardSetupError> {
        tls::install_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| ForwardSetupError::Client)?;
        Ok(Self {
            client,
            target,
            clock,
            unread: Arc::default(),
        })
    }

    async fn ask(&self, cx: &Context, message: &InboundMessage) -> Result<Reply, ForwardError> {
        let links = question::links(cx, message).await;
        let body = Question::new(cx, message, &links).to_json();
        let id = message.message_sid.as_str();
        let timestamp = self.clock.now().as_second().to_string();
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
        let failed = |error: reqwest::Error| ForwardError::of_sending(&error);
        let mut response = request.send().await.map_err(failed)?;
        let answer = answer::read(&mut response).await?;
        for key in self.unread.news(answer.unread) {
            let message_sid = message.message_sid;
            tracing::warn!(%message_sid, key, "the service's answer has a key that is not read; this is told once");
        }
        Ok(answer.reply)
    }
}

impl Handler for Forward {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            let reply = self.ask(&cx, &message).await;
            reply.map_err(HandlerError::new)
        })
    }
}

/// A URL may hold a password.
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
