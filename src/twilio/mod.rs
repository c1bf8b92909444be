//! Twilio's REST API: sending messages, and looking at them; templates; what an account is, and which webhooks its senders
//! have, or are to have.
//!
//! The HTTP client is built on the first call, so that a server which only answers in TwiML never pays for it. Errors say
//! whether a call may be repeated: `POST Messages` has no idempotency key, so one whose fate is unknown must not be.
//!
//! ```no_run
//! use replyhook::store::OpenWindow;
//! use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage};
//! use replyhook::{InboundMessage, Secret, Timestamp};
//!
//! # async fn send(asked: InboundMessage, now: Timestamp) -> Result<(), Box<dyn std::error::Error>> {
//! let account = "AC00000000000000000000000000000001".parse()?;
//! let client = Client::new(ApiUrl::default());
//! let credentials = Credentials::auth_token(account, Secret::new("…"));
//! let message = NewMessage::text(asked.from.clone(), "Your order is ready.").from(asked.to.clone());
//! let window = OpenWindow::of(&asked.from, Some(asked.received_at), now).ok_or("only a template may be sent")?;
//! let sent = client.messages(account, &credentials).create(&message, &window).await?;
//! println!("{} is {}", sent.sid, sent.status.as_str());
//! # Ok(()) }
//! ```

mod account;
mod answer;
mod api_url;
mod content;
mod error;
mod indicators;
#[cfg(feature = "app")]
pub(crate) mod media;
mod messages;
mod new_message;
mod phone_numbers;
mod senders;
mod webhooks;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

pub use account::Account;
pub use api_url::{ApiUrl, ApiUrlError};
pub use content::{Approval, ApprovalStatus, Template, TemplateVariables};
pub use error::{Repeat, RestError, RestErrorKind};
#[cfg_attr(
    not(feature = "app"),
    expect(unused_imports, reason = "who compares with the journal asks")
)]
pub(crate) use messages::CLOCK_SKEW;
pub use messages::{ListMessages, Message, Messages, Page, Text};
pub use new_message::NewMessage;
#[cfg_attr(
    not(feature = "app"),
    expect(unused_imports, reason = "who sends first looks at what it is")
)]
pub(crate) use new_message::{Content, Place};
pub use phone_numbers::PhoneNumber;
pub use senders::{Sender, WebhookMethods};
pub use webhooks::ConfiguredWebhooks;

use crate::secret::Secret;
use crate::sid::AccountSid;
use crate::tls;

/// To a connection. Not sent when it runs out: safe to repeat.
const CONNECT: Duration = Duration::from_secs(3);
/// To a whole answer. Twilio's own limit is in the twenties of seconds: a shorter one would make fates unknown.
const TOTAL: Duration = Duration::from_secs(30);
/// Below the minute after which an idle connection is closed on the other side.
const IDLE: Duration = Duration::from_secs(50);

/// Calls the REST API through one pool of connections.
///
/// ```no_run
/// use replyhook::Secret;
/// use replyhook::twilio::{ApiUrl, Client, Credentials};
///
/// # async fn look() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ApiUrl::default());
/// let account = "AC00000000000000000000000000000001".parse()?;
/// let credentials = Credentials::auth_token(account, Secret::new("…"));
/// println!("the account is {}", client.account(account, &credentials).await?.status);
/// # Ok(()) }
/// ```
pub struct Client {
    url: ApiUrl,
    http: OnceLock<reqwest::Client>,
}

/// Who calls: an account with its auth token, or an API key.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::twilio::Credentials;
///
/// let key = Credentials::api_key("SK00000000000000000000000000000001", Secret::new("s3cret"));
/// assert!(!format!("{key:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Secret,
}

impl Credentials {
    /// The account's SID and auth token.
    pub fn auth_token(account: AccountSid, token: Secret) -> Self {
        Self {
            user: account.to_string(),
            password: token,
        }
    }

    /// An API key, `SK…`, and its secret.
    pub fn api_key(sid: impl Into<String>, secret: Secret) -> Self {
        Self {
            user: sid.into(),
            password: secret,
        }
    }
}

impl Client {
    /// A client for an address of the API. Nothing is built yet.
    pub fn new(url: ApiUrl) -> Self {
        Self {
            url,
            http: OnceLock::new(),
        }
    }

    /// The messages of an account.
    pub fn messages<'a>(
        &'a self,
        account: AccountSid,
        credentials: &'a Credentials,
    ) -> Messages<'a> {
        Messages::new(self, account, credentials)
    }

    /// A request to a path and query.
    fn request(
        &self,
        method: http::Method,
        path: &str,
        credentials: &Credentials,
    ) -> Result<reqwest::RequestBuilder, RestError> {
        let url = format!("{}{path}", self.url);
        Ok(self
            .http()?
            .request(method, url)
            .basic_auth(&credentials.user, Some(credentials.password.expose())))
    }

    fn http(&self) -> Result<&reqwest::Client, RestError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let built = build(&self.url)?;
        Ok(self.http.get_or_init(|| built))
    }
}

fn build(url: &ApiUrl) -> Result<reqwest::Client, RestError> {
    tls::install_provider();
    reqwest::Client::builder()
        .https_only(!url.is_loopback())
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .pool_idle_timeout(IDLE)
        .no_proxy()
        .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| RestError::transport(error, false))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
