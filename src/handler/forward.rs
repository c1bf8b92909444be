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
//! | 200 `application/json` | `{"body": "…"}`, or `{"messages": [{"body": "…", "media": ["https://…"]}]}`, which may be empty |
//! | anything else | the handler has failed |
//!
//! Source: the Standard Webhooks specification, 1.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{Context, Handler, HandlerError};
use crate::clock::Clock;
use crate::message::{InboundMessage, ReferralSource};
use crate::reply::{Media, Reply, ReplyMessage, is_web_url};
use crate::secret::Secret;
use crate::tls;

/// For a connection; the answer has as long as a handler has.
const CONNECT: Duration = Duration::from_secs(5);
/// Services and proxies close what is idle; ours are closed first.
const IDLE: Duration = Duration::from_secs(30);
/// What a reply can be, and then some: ten messages of 1600 characters are 64 kB.
const MOST_BYTES: usize = 1024 * 1024;
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

/// Why a service gave no reply.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("the service cannot be reached: {0}")]
    NotReached(reqwest::Error),
    #[error("the service did not answer: {0}")]
    NoAnswer(reqwest::Error),
    #[error("the service redirects ({0}): set handler.forward_url to where it is")]
    Redirect(u16),
    #[error("the service answered {0}")]
    Status(u16),
    #[error("the service answered over 1 MiB")]
    TooLarge,
    #[error(
        "the service answered with a content type that is none of text/plain and application/json"
    )]
    ContentType,
    #[error("the service answered with text that is not UTF-8")]
    NotText,
    #[error("the service answered with what is no JSON (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error(
        "the service answered with JSON that is neither {{\"body\": \"…\"}} nor {{\"messages\": […]}}"
    )]
    Shape,
    #[error("the service named a file that is no http or https URL")]
    MediaUrl,
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
        })
    }

    async fn ask(&self, cx: &Context, message: &InboundMessage) -> Result<Reply, ForwardError> {
        let links = links(cx, message).await;
        let body =
            serde_json::to_vec(&Outgoing::new(cx, message, &links)).expect("these fields are JSON");
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
        let response = request.send().await.map_err(|error| {
            let is_connect = error.is_connect();
            let error = error.without_url();
            if is_connect {
                ForwardError::NotReached(error)
            } else {
                ForwardError::NoAnswer(error)
            }
        })?;
        read(response).await
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

/// A link to each file.
async fn links(cx: &Context, message: &InboundMessage) -> Vec<Option<String>> {
    let mut links = Vec::with_capacity(message.media.len());
    for index in 0..message.media.len() {
        let link = cx.media(index).link().await;
        if let Err(error) = &link {
            tracing::warn!(message_sid = %message.message_sid, index, %error, "a file has no link");
        }
        links.push(link.ok());
    }
    links
}

async fn read(mut response: reqwest::Response) -> Result<Reply, ForwardError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(ForwardError::Redirect(status.as_u16()));
    }
    if status == http::StatusCode::NO_CONTENT {
        return Ok(Reply::none());
    }
    if status != http::StatusCode::OK {
        return Err(ForwardError::Status(status.as_u16()));
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| ForwardError::NoAnswer(error.without_url()))?
    {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(ForwardError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if body.is_empty() {
        return Ok(Reply::none());
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence {
        "text/plain" => {
            let text = String::from_utf8(body).map_err(|_| ForwardError::NotText)?;
            Ok(Reply::text(text))
        }
        "application/json" => {
            let said: serde_json::Value =
                serde_json::from_slice(&body).map_err(|error| ForwardError::Json {
                    line: error.line(),
                    column: error.column(),
                })?;
            let said: Said = serde_json::from_value(said).map_err(|_| ForwardError::Shape)?;
            said.reply()
        }
        _ => Err(ForwardError::ContentType),
    }
}

/// What a service says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Messages { messages: Vec<SaidMessage> },
    Body { body: String },
}

#[derive(Deserialize)]
struct SaidMessage {
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    media: Vec<String>,
}

impl Said {
    fn reply(self) -> Result<Reply, ForwardError> {
        let messages = match self {
            Self::Body { body } => return Ok(Reply::text(body)),
            Self::Messages { messages } => messages,
        };
        let mut reply = Vec::new();
        for message in messages {
            let mut said = ReplyMessage::text(message.body.unwrap_or_default());
            for url in message.media {
                if !is_web_url(&url) {
                    return Err(ForwardError::MediaUrl);
                }
                said = said.media(Media::url(url));
            }
            reply.push(said);
        }
        Ok(reply.into_iter().collect())
    }
}

/// What a service is told. Its fields, their names and their order are a promise.
#[derive(Serialize)]
struct Outgoing<'a> {
    message_sid: &'a str,
    account_sid: &'a str,
    messaging_service_sid: Option<&'a str>,
    from: &'a str,
    to: &'a str,
    channel: &'a str,
    profile_name: Option<&'a str>,
    external_user_id: Option<&'a str>,
    body: &'a str,
    media: Vec<OutgoingMedia<'a>>,
    location: Option<OutgoingLocation<'a>>,
    button: Option<OutgoingButton<'a>>,
    referral: Option<OutgoingReferral<'a>>,
    replied_to: Option<OutgoingRepliedTo<'a>>,
    /// Consent words go to the consent hook, and reach no handler.
    opt_out: Option<()>,
    received_at: String,
    attempt: u32,
    params: Vec<(&'a str, &'a str)>,
    /// Only with `reply.merge_ms`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    merged: Vec<&'a str>,
}

#[derive(Serialize)]
struct OutgoingMedia<'a> {
    url: &'a str,
    content_type: Option<&'a str>,
    /// Where it can be had for an hour without Twilio's credentials; none where no link can be made.
    link: Option<&'a str>,
}

#[derive(Serialize)]
struct OutgoingLocation<'a> {
    latitude: f64,
    longitude: f64,
    address: Option<&'a str>,
    label: Option<&'a str>,
}

#[derive(Serialize)]
struct OutgoingButton<'a> {
    text: Option<&'a str>,
    payload: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

#[derive(Serialize)]
struct OutgoingReferral<'a> {
    headline: Option<&'a str>,
    body: Option<&'a str>,
    source_id: Option<&'a str>,
    source_type: Option<&'a str>,
    source_url: Option<&'a str>,
    media_url: Option<&'a str>,
    ctwa_clid: Option<&'a str>,
}

#[derive(Serialize)]
struct OutgoingRepliedTo<'a> {
    message_sid: &'a str,
    from: Option<&'a str>,
}

impl<'a> Outgoing<'a> {
    fn new(cx: &Context, message: &'a InboundMessage, links: &'a [Option<String>]) -> Self {
        let service = message.messaging_service_sid.as_ref();
        let external = message.external_user_id.as_ref();
        Self {
            message_sid: message.message_sid.as_str(),
            account_sid: message.account_sid.as_str(),
            messaging_service_sid: service.map(crate::sid::MessagingServiceSid::as_str),
            from: message.from.as_str(),
            to: message.to.as_str(),
            channel: message.channel().as_str(),
            profile_name: message.profile_name.as_deref(),
            external_user_id: external.map(crate::address::Address::as_str),
            body: &message.body,
            media: message
                .media
                .iter()
                .zip(links)
                .map(|(media, link)| OutgoingMedia {
                    url: &media.url,
                    content_type: media.content_type.as_deref(),
                    link: link.as_deref(),
                })
                .collect(),
            location: message.location.as_ref().map(|place| OutgoingLocation {
                latitude: place.latitude,
                longitude: place.longitude,
                address: place.address.as_deref(),
                label: place.label.as_deref(),
            }),
            button: message.button.as_ref().map(|button| OutgoingButton {
                text: button.text.as_deref(),
                payload: button.payload.as_deref(),
                kind: button.kind.as_deref(),
            }),
            referral: message.referral.as_ref().map(|referral| OutgoingReferral {
                headline: referral.headline.as_deref(),
                body: referral.body.as_deref(),
                source_id: referral.source_id.as_deref(),
                source_type: referral.source_type.as_ref().map(ReferralSource::as_str),
                source_url: referral.source_url.as_deref(),
                media_url: referral.media_url.as_deref(),
                ctwa_clid: referral.ctwa_clid.as_deref(),
            }),
            replied_to: message.replied_to.as_ref().map(|quoted| OutgoingRepliedTo {
                message_sid: &quoted.message_sid,
                from: quoted.from.as_ref().map(crate::address::Address::as_str),
            }),
            opt_out: None,
            received_at: message
                .received_at
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            attempt: cx.attempt(),
            params: message.params.iter().collect(),
            merged: message
                .merged
                .iter()
                .map(crate::sid::MessageSid::as_str)
                .collect(),
        }
    }
}
