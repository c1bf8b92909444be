//! HTTP client of the REST API.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use super::api_url::ApiUrl;
use super::credentials::Credentials;
use super::error::RestError;
use crate::tls;

// A connect timeout means that no request was sent, so `RestError::transport` reports it as safe to repeat.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
// Covers the call up to the last byte of the response. Longer than Twilio's own limit of some twenty seconds: with a
// shorter timeout, more calls would end with an unknown result.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
// Below the minute after which the other side closes an idle connection. A call on a connection that is
// just being closed can end with an unknown result.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// HTTP client of one API, built on the first call.
pub(super) struct HttpClient {
    pub(super) url: ApiUrl,
    pool: OnceLock<reqwest::Client>,
}

/// HTTP client and credentials of the calls of one resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthenticatedClient<'a> {
    pub(super) http: &'a HttpClient,
    pub(super) credentials: &'a Credentials,
}

impl HttpClient {
    pub(super) fn new(url: ApiUrl) -> Self {
        Self {
            url,
            pool: OnceLock::new(),
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
            .pool()?
            .request(method, url)
            .basic_auth(&credentials.user, Some(credentials.password.expose())))
    }

    /// Returns the connection pool, which adds no credentials.
    pub(super) fn pool(&self) -> Result<&reqwest::Client, RestError> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        // `OnceLock` cannot store the result of a fallible init in stable Rust. Two first calls may both build a
        // client; one of the two is stored and used by both calls.
        let built = build_http_client(&self.url)?;
        Ok(self.pool.get_or_init(|| built))
    }
}

impl AuthenticatedClient<'_> {
    /// Builds a request; `path` is the path with its query.
    pub(super) fn request(
        &self,
        method: http::Method,
        path: &str,
    ) -> Result<reqwest::RequestBuilder, RestError> {
        self.http.request(method, path, self.credentials)
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

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
