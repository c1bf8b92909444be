//! One signed webhook to any URL, in any language's server, with Twilio's time and Twilio's judgement of the answer.

use std::fmt;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::secret::Secret;
use crate::signature::{SIGNATURE_HEADER, TokenError, sign};
use crate::tls;

/// Twilio's time for a webhook, connecting included.
const TOTAL: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// What Twilio reads of an answer (11750).
const MOST_BYTES: usize = 64 * 1024;

/// A webhook to be called.
#[derive(Clone)]
pub struct Call {
    /// Where it is sent.
    pub url: String,
    /// What it is signed for, if the two differ, as behind a tunnel.
    pub signed_url: Option<String>,
    /// GET, POST or PUT. GET carries the parameters in its query.
    pub method: Method,
    /// The parameters.
    pub form: Form,
    /// Further headers.
    pub headers: HeaderMap,
}

/// What came back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallResult {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The body as text.
    pub body: String,
    /// From connecting to the last byte.
    pub time: Duration,
    /// What Twilio would write into its debugger; `None` where it could use the answer.
    pub error_code: Option<ErrorCode>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The token is empty.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The URL is not http or https.
    #[error("not an http or https URL")]
    Url,
    /// The request failed.
    #[error("{meaning} ({code}): {source}")]
    Failed {
        /// As Twilio would call it.
        code: ErrorCode,
        /// What the code means.
        meaning: &'static str,
        /// What happened.
        source: reqwest::Error,
    },
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// Calls a webhook once.
///
/// # Errors
/// [`CallError`] when there was no answer.
pub async fn call(token: &Secret, call: &Call) -> Result<CallResult, CallError> {
    let get = call.method == Method::GET;
    let with_query = |url: &str| {
        let url = url.split('#').next().unwrap_or_default();
        if call.form.is_empty() || !get {
            url.to_owned()
        } else {
            format!(
                "{url}{}{}",
                if url.contains('?') { '&' } else { '?' },
                call.form.encode()
            )
        }
    };
    let url = with_query(&call.url);
    let signed_url = with_query(call.signed_url.as_deref().unwrap_or(&call.url));
    let signature = sign(token, &signed_url, (!get).then_some(&call.form))?;
    let client = client()?;
    let mut request = client
        .request(call.method.clone(), &url)
        .headers(call.headers.clone());
    // A signature given by hand is a forgery to be tried: ours would make it two.
    if !call.headers.contains_key(SIGNATURE_HEADER) {
        request = request.header(SIGNATURE_HEADER, signature);
    }
    if !get {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request = request.header(CONTENT_TYPE, form).body(call.form.encode());
    }
    let started = Instant::now();
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    // Twilio reads no more either.
    let mut body = Vec::new();
    while body.len() <= MOST_BYTES
        && let Some(chunk) = response.chunk().await.map_err(failed)?
    {
        body.extend_from_slice(&chunk);
    }
    let error_code = judge(status, content_type.as_deref(), &body);
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(CallResult {
        status,
        content_type,
        body,
        time: started.elapsed(),
        error_code,
    })
}

fn client() -> Result<reqwest::Client, CallError> {
    tls::install_provider();
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("TwilioProxy/1.1")
        .build()
        .map_err(failed)
}

fn failed(source: reqwest::Error) -> CallError {
    if source.is_builder() {
        return CallError::Url;
    }
    let code = match () {
        () if source.is_timeout() && source.is_connect() => ErrorCode(11201),
        () if source.is_connect() => ErrorCode(11205),
        () if source.is_timeout() => ErrorCode(11200),
        () => ErrorCode(11206),
    };
    CallError::Failed {
        code,
        meaning: code.meaning().unwrap_or_default(),
        source: source.without_url(),
    }
}

/// What Twilio makes of an answer to an inbound message.
fn judge(status: u16, content_type: Option<&str>, body: &[u8]) -> Option<ErrorCode> {
    let essence = content_type.map(|text| {
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    match essence.as_deref() {
        _ if !(200..300).contains(&status) => Some(ErrorCode(11200)),
        None => Some(ErrorCode(11200)),
        _ if body.len() > MOST_BYTES => Some(ErrorCode(11750)),
        // Sent to the user as it is.
        Some("text/plain") => None,
        Some("text/xml" | "application/xml" | "text/html") => judge_xml(body),
        Some(_) => Some(ErrorCode(12300)),
    }
}

fn judge_xml(body: &[u8]) -> Option<ErrorCode> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Some(ErrorCode(12100));
    };
    if text.is_empty() {
        return None;
    }
    if !text.starts_with('<') {
        return Some(ErrorCode(12100));
    }
    let mut reader = Reader::from_str(text);
    let mut root = None;
    let mut depth = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                root.get_or_insert_with(|| start.name().as_ref().to_owned());
                depth += 1;
            }
            Ok(Event::Empty(start)) => {
                let _ = root.get_or_insert_with(|| start.name().as_ref().to_owned());
            }
            Ok(Event::End(_)) => depth -= 1,
            Ok(Event::Eof) => break,
            Ok(_) => {}
            Err(_) => return Some(ErrorCode(12100)),
        }
    }
    match root.as_deref() {
        _ if depth != 0 => Some(ErrorCode(12100)),
        Some("Response") => None,
        Some(_) => Some(ErrorCode(12102)),
        None => Some(ErrorCode(12100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_status_type_and_xml() {
        let judged = |status, content_type, body: &str| {
            judge(status, content_type, body.as_bytes()).map(|code| code.0)
        };
        assert_eq!(
            judged(
                200,
                Some("text/xml; charset=utf-8"),
                "<?xml version=\"1.0\"?><Response/>"
            ),
            None
        );
        assert_eq!(judged(200, Some("text/plain"), "OK"), None);
        assert_eq!(judged(403, Some("text/plain"), "no"), Some(11200));
        assert_eq!(judged(200, None, "<Response/>"), Some(11200));
        assert_eq!(judged(200, Some("application/json"), "{}"), Some(12300));
        assert_eq!(judged(200, Some("text/xml"), " <Response/>"), Some(12100));
        assert_eq!(
            judged(200, Some("text/xml"), "<Response><Message>a & b"),
            Some(12100)
        );
        assert_eq!(judged(200, Some("text/xml"), "<html></html>"), Some(12102));
        assert_eq!(
            judged(
                200,
                Some("text/xml"),
                &format!("<Response><!--{}--></Response>", "x".repeat(70_000))
            ),
            Some(11750)
        );
    }
}
