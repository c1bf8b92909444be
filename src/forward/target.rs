//! The URL and the key of a service, and the signed requests to it.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use sha2::Sha256;

use crate::clock::Clock;
use crate::tls;
use replyhook_core::Secret;

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

    /// Returns a target with the URL of another, and the key of this one.
    #[cfg(feature = "app")]
    pub(crate) fn with_url_of(&self, other: &Self) -> Self {
        Self {
            url: other.url.clone(),
            key: self.key.clone(),
        }
    }

    /// Creates a request with a JSON body, signed as *Standard Webhooks*.
    pub(super) fn request(
        &self,
        client: &reqwest::Client,
        clock: &dyn Clock,
        id: &str,
        body: Vec<u8>,
    ) -> reqwest::RequestBuilder {
        let timestamp = clock.now().as_second().to_string();
        // Clone the keyed state: the key schedule is computed once, in `parse`.
        let mut mac = self.key.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body] {
            mac.update(part);
        }
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", format!("v1,{signature}"))
            .body(body)
    }
}

/// Creates the HTTP client of a service.
pub(super) fn http_client() -> Result<reqwest::Client, ForwardSetupError> {
    tls::install_provider();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        // A redirect is an error: another host must not get the message, and a 302 would turn the POST into a GET.
        .redirect(reqwest::redirect::Policy::none())
        // Not even a proxy of the environment: the message goes to the configured URL and nowhere else.
        .no_proxy()
        .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| ForwardSetupError::Client)
}

// By hand, without fields: the URL may contain a password, and the key is a secret.
impl fmt::Debug for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardTarget").finish_non_exhaustive()
    }
}
