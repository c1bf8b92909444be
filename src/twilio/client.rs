//! [`Client`] of the REST API, and its [`Credentials`].

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use super::api_url::ApiUrl;
use super::error::RestError;
use crate::sid::AccountSid;
use crate::tls;
use replyhook_core::Secret;

// A connect timeout means that no request was sent, so `RestError::transport` reports it as safe to repeat.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
// Covers the call up to the last byte of the response. Longer than Twilio's own limit of some twenty seconds: with a
// shorter timeout, more calls would end with an unknown result.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
// Below the minute after which the other side closes an idle connection. A call on a connection that is
// just being closed can end with an unknown result.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// A client of the REST API with one connection pool.
///
/// ```no_run
/// use replyhook::Secret;
/// use replyhook::twilio::{ApiUrl, Client, Credentials};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ApiUrl::default());
/// let account = "AC00000000000000000000000000000001".parse()?;
/// let credentials = Credentials::auth_token(account, Secret::new("…"));
/// println!("the account is {}", client.account(account, &credentials).await?.status);
/// # Ok(()) }
/// ```
pub struct Client {
    pub(super) url: ApiUrl,
    http: OnceLock<reqwest::Client>,
}

/// Credentials of a call: an account with its auth token, or an API key.
///
/// `Debug` shows the user name and hides the password.
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
    /// Creates credentials from an account's SID and auth token.
    pub fn auth_token(account: AccountSid, token: Secret) -> Self {
        Self {
            user: account.to_string(),
            password: token,
        }
    }

    /// Creates credentials from an API key, `SK…`, and its secret.
    pub fn api_key(sid: impl Into<String>, secret: Secret) -> Self {
        Self {
            user: sid.into(),
            password: secret,
        }
    }
}

impl Client {
    /// Creates a client of the API at `url`. The HTTP client is built on the first call.
    pub fn new(url: ApiUrl) -> Self {
        Self {
            url,
            http: OnceLock::new(),
        }
    }

    /// Builds an authenticated request; `path` is the path with its query.
    pub(super) fn request(
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

    pub(super) fn http(&self) -> Result<&reqwest::Client, RestError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        // `OnceLock` cannot store the result of a fallible init in stable Rust. Two first calls may both build a
        // client; one of the two is stored and used by both calls.
        let built = build_http_client(&self.url)?;
        Ok(self.http.get_or_init(|| built))
    }
}

fn build_http_client(url: &ApiUrl) -> Result<reqwest::Client, RestError> {
    tls::install_provider();
    reqwest::Client::builder()
        // `ApiUrl` allows plain HTTP for a local stand-in only.
        .https_only(!url.is_loopback())
        // A followed redirect could repeat a POST, or carry credentials to another host. As a response that is neither
        // a success nor a client error, a redirect becomes `RestErrorKind::Unknown`.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        // Ignore HTTPS_PROXY and the like: `ApiUrl` alone decides the destination of the credentials.
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
