//! [`MediaClient`]: fetches and deletes the media files of inbound messages.
//!
//! A file is untrusted. Its URL is built from SIDs, only the API receives credentials, redirects are followed by hand,
//! and local limits on time and size apply, whatever the sender declares.
//!
//! Source: twilio.com/docs/messaging/api/media-resource. The API responds with a redirect to a signed link on a storage
//! host, valid for four hours. Links are not stored; each fetch begins at the API.

mod hosts;
mod resolver;
mod sniffing;

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use reqwest::{Response, Url};

use hosts::RedirectClient;
pub(crate) use hosts::{HostPattern, MediaHosts};
use sniffing::SNIFF_BYTES;
pub(crate) use sniffing::sniff;

use super::client::Client;
use super::credentials::Credentials;
use super::error::RestError;
use super::http_client::CONNECT_TIMEOUT;
use crate::clock::Clock;
use crate::handler::{MediaError, MediaErrorKind, MediaStream};
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::tls;

/// Maximum size of a file: the largest that Twilio accepts for any channel.
pub(crate) const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Timeout of one attempt, from the first call to the last byte of the file.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30);
// Ends a loop of redirects.
const MAX_REDIRECTS: usize = 3;
// Delays before the second to fifth attempt. Twilio may call the webhook before the file is available.
const RETRY_DELAYS: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Client for media files, shared by all accounts.
pub(crate) struct MediaClient {
    hosts: MediaHosts,
    clock: Arc<dyn Clock>,
    /// Client for redirect targets. It has no credentials and connects to public addresses only.
    public_client: OnceLock<reqwest::Client>,
}

/// Identifies a media file at Twilio.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaAddress {
    pub(crate) account: AccountSid,
    pub(crate) message: MessageSid,
    pub(crate) media: MediaSid,
}

impl MediaAddress {
    fn path(&self) -> String {
        let Self {
            account,
            message,
            media,
        } = self;
        format!("/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}")
    }
}

/// Failure of one attempt.
enum FetchFailure {
    /// Another attempt may succeed.
    Retry(MediaError),
    /// Further attempts would fail too.
    Never(MediaError),
}

impl MediaClient {
    pub(crate) fn new(hosts: MediaHosts, clock: Arc<dyn Clock>) -> Self {
        Self {
            hosts,
            clock,
            public_client: OnceLock::new(),
        }
    }

    /// Starts fetching a file. `declared` is the content type that the webhook reported.
    ///
    /// # Errors
    /// [`MediaError`] of the last attempt.
    pub(crate) async fn fetch(
        &self,
        api: &Client,
        credentials: &Credentials,
        address: MediaAddress,
        declared: Option<String>,
    ) -> Result<MediaStream, MediaError> {
        let mut delays = RETRY_DELAYS.into_iter();
        loop {
            match self
                .try_once(api, credentials, address, declared.clone())
                .await
            {
                Ok(stream) => return Ok(stream),
                Err(FetchFailure::Never(error)) => return Err(error),
                Err(FetchFailure::Retry(error)) => {
                    // The injected clock, so that tests advance the delay.
                    let delay = delays.next().ok_or(error)?;
                    self.clock.sleep(delay).await;
                }
            }
        }
    }

    /// Deletes a file at Twilio, which otherwise keeps it. A missing file counts as deleted.
    ///
    /// # Errors
    /// [`MediaError`] if Twilio is unreachable or rejects the call.
    pub(crate) async fn delete(
        &self,
        api: &Client,
        credentials: &Credentials,
        address: MediaAddress,
    ) -> Result<(), MediaError> {
        let path = format!("{}.json", address.path());
        let request = api.http.request(Method::DELETE, &path, credentials);
        let request = request.map_err(unreachable)?;
        let status = request.send().await.map_err(unreachable)?.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(MediaError::new(MediaErrorKind::Rejected(status.as_u16())))
    }

    async fn try_once(
        &self,
        api: &Client,
        credentials: &Credentials,
        address: MediaAddress,
        declared: Option<String>,
    ) -> Result<MediaStream, FetchFailure> {
        // The injected clock measures the limit, so that tests advance it. The HTTP clients have a limit in real time
        // too.
        let mut timeout = self.clock.sleep(DOWNLOAD_TIMEOUT);
        let response = {
            let request = pin!(self.request_file(api, credentials, address));
            match select(request, &mut timeout).await {
                Either::Left((response, _)) => response?,
                Either::Right(_) => {
                    return Err(FetchFailure::Never(MediaError::new(
                        MediaErrorKind::TooSlow,
                    )));
                }
            }
        };
        // Fail early if the server admits that the file is too large. `limited_chunks` enforces the limit in any case.
        let length = response.content_length();
        if length.is_some_and(|length| length > MAX_BYTES) {
            return Err(FetchFailure::Never(MediaError::new(
                MediaErrorKind::TooLarge,
            )));
        }
        let served_type = response.headers().get(CONTENT_TYPE);
        let served_type = served_type.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let mut chunks = limited_chunks(response, timeout);
        // Read the first bytes before returning, because `MediaStream` reports the type that they show.
        let mut first_bytes = Vec::new();
        while first_bytes.len() < SNIFF_BYTES {
            match chunks.next().await {
                None => break,
                Some(Ok(chunk)) => first_bytes.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(FetchFailure::Never(error)),
            }
        }
        // The webhook's type takes precedence over the storage's; both are only declared types.
        let file_type = sniff(declared.or(served_type), &first_bytes);
        Ok(MediaStream::new(file_type, length, first_bytes, chunks))
    }

    /// Calls the API and follows its redirects to the file.
    async fn request_file(
        &self,
        api: &Client,
        credentials: &Credentials,
        address: MediaAddress,
    ) -> Result<Response, FetchFailure> {
        let request = api.http.request(Method::GET, &address.path(), credentials);
        let mut response = request
            .map_err(retryable)?
            .send()
            .await
            .map_err(retryable)?;
        let mut hops = 0;
        while response.status().is_redirection() {
            hops += 1;
            let next = Some(hops)
                .filter(|hops| *hops <= MAX_REDIRECTS)
                .and_then(|_| redirect_target(&response));
            let foreign_host = || FetchFailure::Never(MediaError::new(MediaErrorKind::ForeignHost));
            // A redirect without a usable `Location`, or one too many, is treated like one to a foreign host.
            let next = next.ok_or_else(foreign_host)?;
            let http = match self.hosts.client_for(&next, &api.http.url) {
                Some(RedirectClient::PublicOnly) => self.public_client().map_err(retryable)?,
                // The local stand-in serves its files itself, on an address that `public_client` would reject.
                Some(RedirectClient::Api) => api.http.pool().map_err(retryable)?,
                None => return Err(foreign_host()),
            };
            // Neither client adds credentials here: only `HttpClient::request` does.
            response = http.get(next).send().await.map_err(redirect_failure)?;
        }
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            // The file may not be available yet, so another attempt can succeed.
            StatusCode::NOT_FOUND => {
                Err(FetchFailure::Retry(MediaError::new(MediaErrorKind::Gone)))
            }
            // The signed link has expired since the redirect. The next attempt gets a new one from the API.
            StatusCode::FORBIDDEN if hops > 0 => Err(FetchFailure::Retry(rejected(status))),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(FetchFailure::Retry(rejected(status)))
            }
            status => Err(FetchFailure::Never(rejected(status))),
        }
    }

    fn public_client(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(http) = self.public_client.get() {
            return Ok(http);
        }
        // Two first calls may both build a client; `get_or_init` stores one and returns it to both.
        tls::install_provider();
        let built = reqwest::Client::builder()
            .https_only(true)
            // `request_file` checks every redirect against `MediaHosts` before it follows it.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(DOWNLOAD_TIMEOUT)
            // The address is checked when the client connects, so a name cannot change its address after a check.
            .dns_resolver(Arc::new(resolver::PublicResolver))
            // A proxy would resolve the name itself and bypass `PublicResolver`.
            .no_proxy()
            .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.public_client.get_or_init(|| built))
    }
}

fn retryable(error: impl Into<RestError>) -> FetchFailure {
    FetchFailure::Retry(unreachable(error))
}

// A name with a private address is not retried: it will not have another address a second later.
fn redirect_failure(error: reqwest::Error) -> FetchFailure {
    if resolver::is_private_address_error(&error) {
        return FetchFailure::Never(MediaError::new(MediaErrorKind::ForeignHost));
    }
    retryable(error)
}

// `join` resolves a relative `Location` against the URL of the response.
fn redirect_target(response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    response.url().join(location).ok()
}

fn rejected(status: StatusCode) -> MediaError {
    MediaError::new(MediaErrorKind::Rejected(status.as_u16()))
}

// Converting to `RestError` removes the URL from the source: a signed link gives access to the file without
// credentials.
fn unreachable(error: impl Into<RestError>) -> MediaError {
    MediaError::with_source(MediaErrorKind::Unreachable, error.into())
}

/// Returns the bytes of a response as a stream that enforces the limits of time and size.
// The state is `None` after an error, which ends the stream. The size is counted from the bytes themselves, since
// `Content-Length` may be missing or wrong.
fn limited_chunks(
    response: Response,
    timeout: BoxFuture<'static, ()>,
) -> BoxStream<'static, Result<Vec<u8>, MediaError>> {
    unfold(Some((response, timeout, 0_u64)), |state| async move {
        let (mut response, mut timeout, received) = state?;
        let chunk = {
            let chunk = pin!(response.chunk());
            match select(chunk, &mut timeout).await {
                Either::Left((chunk, _)) => chunk,
                Either::Right(_) => {
                    return Some((Err(MediaError::new(MediaErrorKind::TooSlow)), None));
                }
            }
        };
        let chunk = match chunk {
            Ok(chunk) => Vec::from(chunk?),
            // The client's own timeout, in real time.
            Err(error) if error.is_timeout() => {
                return Some((Err(MediaError::new(MediaErrorKind::TooSlow)), None));
            }
            Err(error) => return Some((Err(unreachable(error)), None)),
        };
        let received = received + chunk.len() as u64;
        if received > MAX_BYTES {
            return Some((Err(MediaError::new(MediaErrorKind::TooLarge)), None));
        }
        Some((Ok(chunk), Some((response, timeout, received))))
    })
    // `Unfold` panics if it is polled after its end; `try_once` and the reader of the stream may do so.
    .fuse()
    .boxed()
}
