//! Why a call failed, and whether it may be made again.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::error::BoxError;
use crate::error_code::ErrorCode;

/// A call that did not do what it should. Holds neither credentials nor what was sent.
///
/// ```no_run
/// use replyhook::twilio::{Messages, NewMessage, Repeat};
///
/// # async fn send(messages: Messages<'_>, template: NewMessage) {
/// if let Err(error) = messages.create_template(&template).await {
///     match error.repeat() {
///         Repeat::Safe(wait) => println!("again in {wait:?}"),
///         Repeat::Never => println!("refused: {:?}", error.code()),
///         Repeat::Ambiguous => println!("look whether it was sent before you send it again"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct RestError {
    kind: RestErrorKind,
    source: Option<BoxError>,
}

/// What became of a call.
///
/// Whether to call again is [`RestError::repeat`]: see [`RestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestErrorKind {
    /// Twilio refused it: nothing was sent.
    Refused {
        /// HTTP status, 4xx but 429.
        status: u16,
        /// Twilio's code, where the answer had one.
        code: Option<ErrorCode>,
    },
    /// Too many calls: documented as not processed.
    RateLimited {
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// It never reached Twilio: no connection, no name, no TLS.
    NotSent,
    /// It was not made: what was to be sent without an open window is no template.
    NoTemplate,
    /// It may have been processed: a timeout, a broken connection, a 5xx, or an answer that cannot be read.
    Unknown {
        /// HTTP status, if there was one.
        status: Option<u16>,
    },
}

/// Whether a call may be made again.
///
/// Decided by: see [`RestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It was not processed: again, after at least this long.
    Safe(Duration),
    /// It would be refused again.
    Never,
    /// Only for calls that change nothing: it may have been processed.
    Ambiguous,
}

impl RestError {
    /// What became of the call.
    pub fn kind(&self) -> RestErrorKind {
        self.kind
    }

    /// Twilio's code, where the answer had one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            RestErrorKind::Refused { code, .. } => code,
            _ => None,
        }
    }

    /// Whether the call may be made again.
    pub fn repeat(&self) -> Repeat {
        match self.kind {
            RestErrorKind::Refused { .. } | RestErrorKind::NoTemplate => Repeat::Never,
            RestErrorKind::RateLimited { retry_after } => {
                Repeat::Safe(retry_after.unwrap_or_default())
            }
            RestErrorKind::NotSent => Repeat::Safe(Duration::ZERO),
            RestErrorKind::Unknown { .. } => Repeat::Ambiguous,
        }
    }

    /// What is to be sent is no template.
    pub(super) fn no_template() -> Self {
        Self {
            kind: RestErrorKind::NoTemplate,
            source: None,
        }
    }

    /// From an answer that is no success.
    pub(super) fn answered(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => RestErrorKind::RateLimited { retry_after },
            status if status.is_client_error() => RestErrorKind::Refused {
                status: status.as_u16(),
                code: code_of(body),
            },
            status => RestErrorKind::Unknown {
                status: Some(status.as_u16()),
            },
        };
        Self { kind, source: None }
    }

    /// From a success whose body is not what it should be: whatever was asked for has happened.
    pub(super) fn unreadable(status: StatusCode, source: impl Into<BoxError>) -> Self {
        Self {
            kind: RestErrorKind::Unknown {
                status: Some(status.as_u16()),
            },
            source: Some(source.into()),
        }
    }

    /// From the network. `started` tells whether an answer had begun.
    pub(super) fn transport(source: reqwest::Error, started: bool) -> Self {
        let unsent = !started && (source.is_connect() || source.is_builder());
        let kind = if unsent {
            RestErrorKind::NotSent
        } else {
            RestErrorKind::Unknown { status: None }
        };
        // The URL holds the account, and for a list the numbers asked for.
        Self {
            kind,
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

/// Twilio's `code`, in the classic form and that of RFC 9457; anything else has none.
fn code_of(body: &[u8]) -> Option<ErrorCode> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = answer.get("code")?;
    let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
    u32::try_from(number).ok().map(ErrorCode)
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RestErrorKind::Refused {
                status,
                code: Some(code),
            } => {
                write!(
                    f,
                    "Twilio refused the call: {} ({code}, HTTP {status})",
                    code.meaning().unwrap_or("an unknown code")
                )
            }
            RestErrorKind::Refused { status, code: None } => {
                write!(f, "Twilio refused the call (HTTP {status})")
            }
            RestErrorKind::RateLimited { .. } => {
                f.write_str("Twilio takes no more calls for now (HTTP 429)")
            }
            RestErrorKind::NotSent => f.write_str("Twilio could not be reached"),
            RestErrorKind::NoTemplate => {
                f.write_str("only a template goes without an open window: nothing was sent")
            }
            RestErrorKind::Unknown {
                status: Some(status),
            } => {
                write!(
                    f,
                    "whether Twilio processed the call is not known (HTTP {status})"
                )
            }
            RestErrorKind::Unknown { status: None } => {
                f.write_str("whether Twilio processed the call is not known")
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
