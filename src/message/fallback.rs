//! What a fallback call adds to a message: why the primary failed, and which URL that was.

use super::parse::{self, ParseError};
use crate::error_code::ErrorCode;
use crate::form::Form;

/// `ErrorCode` and `ErrorUrl` of a fallback call.
///
/// ```
/// use replyhook::{ErrorCode, FallbackCause, Form};
///
/// let form = Form::from_iter([("ErrorCode", "11200"), ("ErrorUrl", "https://bot.example.com/webhook")]);
/// let cause = FallbackCause::parse(&form)?;
/// assert_eq!(cause.error_code, Some(ErrorCode(11200)));
/// assert_eq!(cause.error_url.as_deref(), Some("https://bot.example.com/webhook"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackCause {
    /// `ErrorCode`, such as 11200; `None` when it is missing or no number.
    pub error_code: Option<ErrorCode>,
    /// `ErrorUrl`: the URL that failed.
    pub error_url: Option<String>,
}

impl FallbackCause {
    /// Reads the two parameters. A call without them is still answered: the fallback must not fail.
    ///
    /// # Errors
    /// [`ParseError`] when one of them came with two different values.
    pub fn parse(params: &Form) -> Result<Self, ParseError> {
        parse::refuse_ambiguous(params)?;
        Ok(Self {
            error_code: parse::parsed(params, "ErrorCode"),
            error_url: parse::text(params, "ErrorUrl"),
        })
    }
}
