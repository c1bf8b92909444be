//! One HTTP call as Twilio makes it: connected anew, within its times, redirects not followed.

use std::error::Error;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use rustls::pki_types::InvalidDnsNameError;

use super::answer::MOST_BYTES;
use crate::error_code::ErrorCode;
use crate::tls;

/// What is sent.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Twilio's patience.
///
/// Source: twilio.com/docs/usage/webhooks/webhooks-connection-overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// For a connection, TLS included.
    pub(super) connect: Duration,
    /// To the first byte of the answer.
    pub(super) read: Duration,
    /// For everything.
    pub(super) total: Duration,
}

impl Times {
    pub(super) const DEFAULT: Self = Self {
        connect: Duration::from_secs(5),
        read: Duration::from_secs(15),
        total: Duration::from_secs(15),
    };
}

/// What came back.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// A byte more than Twilio reads, at most.
    pub(super) body: Vec<u8>,
}

/// Nothing, or not all, came back.
#[derive(Debug, thiserror::Error)]
#[error("{meaning} ({code}): {source}", meaning = code.meaning().unwrap_or("no answer"))]
pub(super) struct NoAnswer {
    pub(super) code: ErrorCode,
    /// Whether no connection came about: by default only that is tried again.
    pub(super) is_connect: bool,
    /// Whether time was used up.
    pub(super) is_timeout: bool,
    pub(super) source: NoAnswerSource,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswerSource {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("not in time")]
    Late,
    #[error("the connection broke off")]
    BrokenOff,
}

impl Incoming {
    pub(super) fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
    }
}

/// Calls once. The time is that from connecting to the last byte.
///
/// # Errors
/// [`NoAnswer`] with the code that Twilio has for it.
pub(super) async fn send(
    outgoing: &Outgoing,
    times: Times,
) -> (Duration, Result<Incoming, NoAnswer>) {
    let started = Instant::now();
    let answer = tokio::time::timeout(times.total, exchange(outgoing, times));
    let answer = answer
        .await
        .unwrap_or_else(|_| Err(NoAnswer::too_late(times)));
    (started.elapsed(), answer)
}

async fn exchange(outgoing: &Outgoing, times: Times) -> Result<Incoming, NoAnswer> {
    let client = client(times.connect).map_err(failed)?;
    let mut request = client
        .request(outgoing.method.clone(), &outgoing.url)
        .headers(outgoing.headers.clone());
    if !outgoing.body.is_empty() || outgoing.method != Method::GET {
        request = request.body(outgoing.body.clone());
    }
    let first = tokio::time::timeout(times.read, request.send());
    let mut response = match first.await {
        Ok(response) => response.map_err(failed)?,
        Err(_) => return Err(NoAnswer::too_late(times)),
    };
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    // Twilio reads no more either.
    let mut body = Vec::new();
    while body.len() <= MOST_BYTES
        && let Some(chunk) = response.chunk().await.map_err(failed)?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(Incoming {
        status,
        headers,
        body,
    })
}

/// A client whose calls each have a connection of their own: none inherits one that the server has closed. That with
/// Twilio's times is kept, since making one takes longer than a call on this machine.
fn client(connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    static USUAL: OnceLock<reqwest::Client> = OnceLock::new();
    let is_usual = connect == Times::DEFAULT.connect;
    if let Some(client) = USUAL.get().filter(|_| is_usual) {
        return Ok(client.clone());
    }
    tls::install_provider();
    let client = reqwest::Client::builder()
        .connect_timeout(connect)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("TwilioProxy/1.1")
        .build()?;
    Ok(if is_usual {
        USUAL.get_or_init(|| client).clone()
    } else {
        client
    })
}

fn failed(source: reqwest::Error) -> NoAnswer {
    let code = match () {
        () if source.is_builder() => 11100,
        () if source.is_connect() && source.is_timeout() => 11201,
        () if source.is_connect() => why_not_connected(&source),
        () if source.is_timeout() => 11200,
        () => 11206,
    };
    NoAnswer {
        code: ErrorCode(code),
        is_connect: source.is_connect(),
        is_timeout: source.is_timeout(),
        source: NoAnswerSource::Http(source.without_url()),
    }
}

fn why_not_connected(error: &reqwest::Error) -> u32 {
    for cause in causes(error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return why_no_tls(tls);
        }
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return 11202;
        }
        // hyper-util names its resolver's errors so, and has no type for them. What can be no name is refused before.
        if cause.is::<InvalidDnsNameError>() || cause.to_string() == "dns error" {
            return 11210;
        }
    }
    11205
}

/// An error and what lies under it. An I/O error names only what lies under that which it carries, and may carry another.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let io = error.downcast_ref::<std::io::Error>();
        match io.and_then(std::io::Error::get_ref) {
            Some(carried) => Some(carried as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn why_no_tls(error: &rustls::Error) -> u32 {
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

impl NoAnswer {
    /// The connection ended before the answer was read.
    pub(super) fn broken_off() -> Self {
        Self {
            code: ErrorCode(11205),
            is_connect: false,
            is_timeout: false,
            source: NoAnswerSource::BrokenOff,
        }
    }

    /// The answer came after Twilio's time: that of one try, or that of all.
    pub(super) fn too_late(times: Times) -> Self {
        let is_total = times.total < times.read.min(Times::DEFAULT.total);
        Self {
            code: ErrorCode(if is_total { 11203 } else { 11200 }),
            is_connect: false,
            is_timeout: true,
            source: NoAnswerSource::Late,
        }
    }
}
