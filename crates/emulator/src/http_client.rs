//! HTTP requests as Twilio makes them: a new connection each time, Twilio's timeouts, and redirects not followed.

use std::error::Error;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, Method};
use rustls::pki_types::InvalidDnsNameError;

use super::response_check::MAX_RESPONSE_BYTES;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::tls;

/// Request to send.
#[derive(Clone)]
pub(super) struct HttpRequest {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Timeouts of a webhook request.
///
/// Source: twilio.com/docs/usage/webhooks/webhooks-connection-overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// Limit for TCP connect and TLS handshake.
    pub(super) connect: Duration,
    /// Limit until the head of the response.
    pub(super) read: Duration,
    /// Limit for everything.
    pub(super) total: Duration,
    /// True if `total` is shorter than the default, because of the override `tt` or earlier attempts.
    pub(super) is_total_reduced: bool,
}

impl Timeouts {
    pub(super) const DEFAULT: Self = Self {
        connect: Duration::from_secs(5),
        read: Duration::from_secs(15),
        total: Duration::from_secs(15),
        is_total_reduced: false,
    };
}

/// Response received.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The body, cut off after the chunk that exceeds [`MAX_RESPONSE_BYTES`].
    pub(super) body: Vec<u8>,
}

/// Failed request, with Twilio's error code.
#[derive(Debug, thiserror::Error)]
#[error("{meaning} ({code}): {source}", meaning = code.meaning_or_link())]
pub(super) struct HttpError {
    pub(super) code: ErrorCode,
    /// True if connecting failed. By default, Twilio retries only then.
    pub(super) is_connect: bool,
    /// True if a timeout passed.
    pub(super) is_timeout: bool,
    pub(super) source: HttpErrorSource,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HttpErrorSource {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("timed out")]
    TimedOut,
    #[error("the connection was closed")]
    ClosedEarly,
}

impl HttpResponse {
    pub(super) fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// Returns whether the response asks for the password of the URL.
    pub(super) fn is_login_challenge(&self) -> bool {
        self.status == 401 && self.headers.contains_key(WWW_AUTHENTICATE)
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
    }
}

/// Sends one request. Returns the time from connecting to the last byte, and the response.
///
/// # Errors
/// [`HttpError`] with the code that Twilio would report.
pub(super) async fn send(
    outgoing: &HttpRequest,
    timeouts: Timeouts,
) -> (Duration, Result<HttpResponse, HttpError>) {
    // The machine's clock, not the emulator's: an advanced clock must not time out real requests.
    let started = Instant::now();
    let response = tokio::time::timeout(timeouts.total, exchange(outgoing, timeouts));
    let response = response
        .await
        .unwrap_or_else(|_| Err(HttpError::timed_out(timeouts)));
    (started.elapsed(), response)
}

async fn exchange(outgoing: &HttpRequest, timeouts: Timeouts) -> Result<HttpResponse, HttpError> {
    let client = client(timeouts.connect).map_err(http_error)?;
    let mut request = client
        .request(outgoing.method.clone(), &outgoing.url)
        .headers(outgoing.headers.clone());
    if !outgoing.body.is_empty() || outgoing.method != Method::GET {
        request = request.body(outgoing.body.clone());
    }
    let response_head = tokio::time::timeout(timeouts.read, request.send());
    let mut response = match response_head.await {
        Ok(response) => response.map_err(http_error)?,
        Err(_) => return Err(HttpError::timed_out(timeouts)),
    };
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    // Stop above Twilio's limit, so that a large response uses little memory. `check_response` rejects it for its
    // length.
    let mut body = Vec::new();
    while body.len() <= MAX_RESPONSE_BYTES
        && let Some(chunk) = response.chunk().await.map_err(http_error)?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(HttpResponse {
        status,
        headers,
        body,
    })
}

/// Returns a client that does not reuse connections.
fn client(connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // Cached, since building a client takes longer than a request on this machine. Other connect timeouts are rare.
    static DEFAULT: OnceLock<reqwest::Client> = OnceLock::new();
    let is_default = connect == Timeouts::DEFAULT.connect;
    if let Some(client) = DEFAULT.get().filter(|_| is_default) {
        return Ok(client.clone());
    }
    tls::install_provider();
    let client = reqwest::Client::builder()
        .connect_timeout(connect)
        // The server may close an idle connection just when it is reused, which would look like a failed webhook.
        .pool_max_idle_per_host(0)
        // `WebhookClient::follow_redirects` follows redirects: each target gets a signature of its own.
        .redirect(reqwest::redirect::Policy::none())
        // A proxy from the environment could not reach a webhook on loopback.
        .no_proxy()
        .user_agent("TwilioProxy/1.1")
        .build()?;
    Ok(if is_default {
        DEFAULT.get_or_init(|| client).clone()
    } else {
        client
    })
}

fn http_error(source: reqwest::Error) -> HttpError {
    // The order matters: a connect timeout is also a connect error and a timeout.
    let code = match () {
        () if source.is_builder() => 11100,
        () if source.is_connect() && source.is_timeout() => 11201,
        () if source.is_connect() => connect_error_code(&source),
        () if source.is_timeout() => 11205,
        () => 11206,
    };
    HttpError {
        code: ErrorCode(code),
        is_connect: source.is_connect(),
        is_timeout: source.is_timeout(),
        // The URL may contain a password.
        source: HttpErrorSource::Http(source.without_url()),
    }
}

fn connect_error_code(error: &reqwest::Error) -> u32 {
    for cause in causes(error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_error_code(tls);
        }
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return 11202;
        }
        // hyper-util has no public type for errors of its resolver, only this text. A name that is invalid in TLS fails
        // earlier, with `InvalidDnsNameError`.
        if cause.is::<InvalidDnsNameError>() || cause.to_string() == "dns error" {
            return 11210;
        }
    }
    11205
}

/// Iterates over an error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // `io::Error::source` skips the error that it wraps and returns that one's source, so use `get_ref`.
        let io = error.downcast_ref::<std::io::Error>();
        match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn tls_error_code(error: &rustls::Error) -> u32 {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(
            Certificate::Expired | Certificate::ExpiredContext { .. },
        ) => 11236,
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => 11235,
        rustls::Error::InvalidCertificate(_) => 11237,
        _ => 11220,
    }
}

impl HttpError {
    /// Returns the error of a connection that closed before the response was read.
    pub(super) fn closed_early() -> Self {
        Self {
            code: ErrorCode(11205),
            is_connect: false,
            is_timeout: false,
            source: HttpErrorSource::ClosedEarly,
        }
    }

    /// Returns the error of a request without a response within the `read` or `total` timeout.
    pub(super) fn timed_out(timeouts: Timeouts) -> Self {
        // `total` alone is not enough: it is the time that remains, so it is below the default in every attempt. Twilio
        // reports 11203 for the total time of several attempts, and 11205 for a slow response.
        let is_total = timeouts.is_total_reduced && timeouts.total < timeouts.read;
        Self {
            code: ErrorCode(if is_total { 11203 } else { 11205 }),
            is_connect: false,
            is_timeout: true,
            source: HttpErrorSource::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overrides::Overrides;

    // An attempt starts a moment after its time is measured, so a part of `total` has always passed.
    #[test]
    fn slow_webhook_reports_11203_for_reduced_total_only() {
        for (fragment, code) in [
            ("", 11205),
            ("#rt=15000&tt=15000", 11205),
            ("#rt=300", 11205),
            ("#tt=300", 11203),
            ("#rt=300&tt=9000", 11205),
        ] {
            let mut timeouts = Overrides::parse(&format!("https://h/p{fragment}"))
                .0
                .timeouts;
            timeouts.total -= Duration::from_micros(1);
            let error = HttpError::timed_out(timeouts);
            assert_eq!(error.code, ErrorCode(code), "{fragment}");
        }
    }
}
