//! [`RestError`]: the cause of a failed call, and advice on repeating it.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::error_code::ErrorCode;
use replyhook_core::BoxError;

/// Twilio's code for a sender whose queue of outbound messages is full.
const QUEUE_FULL: ErrorCode = ErrorCode(21611);

/// Twilio's code for a call that the API key has no permission for.
const MISSING_PERMISSION: ErrorCode = ErrorCode(70051);
/// Maximum length of Twilio's own text in an error.
const MAX_DETAIL_CHARACTERS: usize = 300;

/// The error of a failed REST call. It contains neither credentials nor message content.
///
/// ```no_run
/// use replyhook::twilio::{Messages, NewMessage, RetryAdvice};
///
/// # async fn send(messages: Messages<'_>, template: NewMessage) {
/// if let Err(error) = messages.create_template(&template).await {
///     match error.retry_advice() {
///         RetryAdvice::Safe(wait) => println!("retry in {wait:?}"),
///         RetryAdvice::Never => println!("rejected: {:?}", error.code()),
///         RetryAdvice::Ambiguous => println!("check Twilio's list of messages before sending again"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct RestError {
    kind: RestErrorKind,
    /// Twilio's own text about a missing permission.
    detail: Option<String>,
    source: Option<BoxError>,
}

/// The result of a failed call. [`RestError::retry_advice`] derives from it whether to repeat the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestErrorKind {
    /// Twilio rejected the call and sent nothing.
    Rejected {
        /// HTTP status, a 4xx other than 429.
        status: u16,
        /// Twilio's error code, if the response has one.
        code: Option<ErrorCode>,
    },
    /// Too many calls (HTTP 429), or too many queued messages of the sender (21611). Twilio documents such a call as not
    /// processed.
    RateLimited {
        /// The delay from the header `Retry-After`.
        retry_after: Option<Duration>,
        /// Twilio's error code, if the response has one.
        code: Option<ErrorCode>,
    },
    /// The call never reached Twilio: name resolution, connection or TLS handshake failed.
    Connect,
    /// The call was not made: without an open customer service window, only a template may be sent.
    TemplateRequired,
    /// The call was not made: only an `OutboundClient` sends a [`NewMessage::reply`](super::NewMessage::reply).
    OutboundOnly,
    /// Twilio may have processed the call: a timeout, a broken connection, a 5xx, or an unreadable response.
    Unknown {
        /// HTTP status, if there was one.
        status: Option<u16>,
    },
}

/// Advice on repeating a failed call. See [`RestError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// The call was not processed. Repeat it after at least this delay.
    Safe(Duration),
    /// Twilio would reject the call again.
    Never,
    /// The call may have been processed. Repeat it only if it changes nothing.
    Ambiguous,
}

impl RestError {
    /// Returns the kind of failure.
    pub fn kind(&self) -> RestErrorKind {
        self.kind
    }

    /// Returns Twilio's error code, if the response has one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            RestErrorKind::Rejected { code, .. } | RestErrorKind::RateLimited { code, .. } => code,
            _ => None,
        }
    }

    /// Returns whether the API key has no permission for the call (70051). The key itself is valid.
    pub fn is_missing_permission(&self) -> bool {
        self.code() == Some(MISSING_PERMISSION)
    }

    /// Returns Twilio's own text about a missing permission, which names the permission. Without private data.
    #[cfg(feature = "app")]
    pub(crate) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Returns whether the API key may not send any message. Another missing permission, such as that for templates, concerns
    /// only the messages that need it.
    #[cfg(feature = "app")]
    pub(crate) fn is_sending_denied(&self) -> bool {
        let detail = self.detail.as_deref().unwrap_or_default();
        self.is_missing_permission() && detail.contains("messages/create")
    }

    /// Returns whether, and after which delay, the call may be repeated.
    pub fn retry_advice(&self) -> RetryAdvice {
        match self.kind {
            RestErrorKind::Rejected { .. }
            | RestErrorKind::TemplateRequired
            | RestErrorKind::OutboundOnly => RetryAdvice::Never,
            RestErrorKind::RateLimited { retry_after, .. } => {
                RetryAdvice::Safe(retry_after.unwrap_or_default())
            }
            RestErrorKind::Connect => RetryAdvice::Safe(Duration::ZERO),
            RestErrorKind::Unknown { .. } => RetryAdvice::Ambiguous,
        }
    }

    pub(super) fn template_required() -> Self {
        Self::not_made(RestErrorKind::TemplateRequired)
    }

    pub(super) fn outbound_only() -> Self {
        Self::not_made(RestErrorKind::OutboundOnly)
    }

    fn not_made(kind: RestErrorKind) -> Self {
        Self {
            kind,
            detail: None,
            source: None,
        }
    }

    /// Creates the error of a response with a status other than 2xx.
    pub(super) fn from_response(
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let code = parse_code(body);
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => RestErrorKind::RateLimited { retry_after, code },
            // A full queue drains by itself, although Twilio reports it with 400.
            status if status.is_client_error() && code == Some(QUEUE_FULL) => {
                RestErrorKind::RateLimited { retry_after, code }
            }
            status if status.is_client_error() => RestErrorKind::Rejected {
                status: status.as_u16(),
                code,
            },
            // A 5xx may come after Twilio has processed the call. A 3xx is not followed, so its effect is unknown too.
            status => RestErrorKind::Unknown {
                status: Some(status.as_u16()),
            },
        };
        Self {
            kind,
            // No other text of Twilio: it may quote a phone number.
            detail: (code == Some(MISSING_PERMISSION))
                .then(|| parse_detail(body))
                .flatten(),
            source: None,
        }
    }

    /// Creates the error of a 2xx response whose body cannot be read.
    // The kind is `Unknown` although Twilio reported success: without a SID the caller cannot store the message as
    // sent, but must not send it again either.
    pub(super) fn unreadable(status: StatusCode, source: impl Into<BoxError>) -> Self {
        Self {
            kind: RestErrorKind::Unknown {
                status: Some(status.as_u16()),
            },
            detail: None,
            source: Some(source.into()),
        }
    }

    /// Creates the error of a failed request. `has_response` is true if the response had begun.
    pub(super) fn transport(source: reqwest::Error, has_response: bool) -> Self {
        // Only these two kinds prove that no byte of the request reached Twilio.
        let is_unsent = !has_response && (source.is_connect() || source.is_builder());
        let kind = if is_unsent {
            RestErrorKind::Connect
        } else {
            RestErrorKind::Unknown { status: None }
        };
        // The URL contains the account SID, the query of a list users' phone numbers, and a media redirect a signed
        // link.
        Self {
            kind,
            detail: None,
            source: Some(source.without_url().into()),
        }
    }
}

#[cfg(feature = "app")]
impl From<reqwest::Error> for RestError {
    fn from(source: reqwest::Error) -> Self {
        Self::transport(source, false)
    }
}

/// Reads Twilio's `code` from an error body.
// A number in the classic form, a string of digits in the form of RFC 9457. A proxy's error page has neither.
fn parse_code(body: &[u8]) -> Option<ErrorCode> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = body.get("code")?;
    let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
    // 0 is not a code.
    u32::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .map(ErrorCode)
}

/// Reads Twilio's text from an error body: `message` in the classic form, `detail` in the form of RFC 9457.
fn parse_detail(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = body.get("message").or_else(|| body.get("detail"))?;
    let words: Vec<_> = text.as_str()?.split_whitespace().collect();
    let text = words.join(" ");
    let printable = text.chars().filter(|c| !c.is_control());
    let text: String = printable.take(MAX_DETAIL_CHARACTERS).collect();
    let is_private = text.contains('@') || has_long_number(&text);
    (!text.is_empty() && !is_private).then_some(text)
}

/// Returns whether a text has seven digits in a row, as a phone number has. The name of a permission has none.
fn has_long_number(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits.len() >= 7)
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RestErrorKind::Rejected {
                status,
                code: Some(code),
            } => {
                write!(
                    f,
                    "Twilio rejected the call: {} ({code}, HTTP {status})",
                    code.meaning_or_link()
                )?;
                match &self.detail {
                    Some(detail) => write!(f, ": {detail}"),
                    None => Ok(()),
                }
            }
            RestErrorKind::Rejected { status, code: None } => {
                write!(f, "Twilio rejected the call (HTTP {status})")
            }
            RestErrorKind::RateLimited {
                code: Some(QUEUE_FULL),
                ..
            } => f.write_str("the sender's queue at Twilio is full (21611)"),
            RestErrorKind::RateLimited { .. } => {
                f.write_str("Twilio's rate limit is exceeded (HTTP 429)")
            }
            RestErrorKind::Connect => f.write_str("Twilio could not be reached"),
            RestErrorKind::TemplateRequired => f.write_str(
                "not sent: outside the customer service window only a template may be sent",
            ),
            RestErrorKind::OutboundOnly => {
                f.write_str("not sent: only an OutboundClient sends a message with a reply")
            }
            RestErrorKind::Unknown {
                status: Some(status),
            } => {
                write!(f, "Twilio may have processed the call (HTTP {status})")
            }
            RestErrorKind::Unknown { status: None } => {
                f.write_str("Twilio may have processed the call")
            }
        }
    }
}

impl std::error::Error for RestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
