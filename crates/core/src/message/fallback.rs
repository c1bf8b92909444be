//! Additional parameters of a fallback call: the error of the primary webhook, and its URL.

use super::parse::{self, ParseError};
use crate::error_code::ErrorCode;
use crate::form::FormParams;

/// Cause of a fallback call: its parameters `ErrorCode` and `ErrorUrl`.
///
/// ```
/// use replyhook::{ErrorCode, FallbackCause, FormParams};
///
/// let form = FormParams::from_iter([("ErrorCode", "11200"), ("ErrorUrl", "https://bot.example.com/webhook")]);
/// let cause = FallbackCause::parse(&form)?;
/// assert_eq!(cause.error_code, Some(ErrorCode(11200)));
/// assert_eq!(cause.error_url.as_deref(), Some("https://bot.example.com/webhook"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackCause {
    /// `ErrorCode`, such as 11200; `None` if it is missing or not a number.
    pub error_code: Option<ErrorCode>,
    /// `ErrorUrl`: the URL that failed.
    pub error_url: Option<String>,
}

impl FallbackCause {
    /// Parses the two parameters. Both may be missing.
    ///
    /// # Errors
    /// [`ParseError`] if one of them, or another parameter on which a decision depends, has two different values.
    pub fn parse(params: &FormParams) -> Result<Self, ParseError> {
        // Lenient otherwise: a fallback call must get a response, since Twilio calls no further URL.
        parse::reject_ambiguous(params)?;
        Ok(Self {
            error_code: parse::parse_optional(params, "ErrorCode"),
            error_url: parse::optional_text(params, "ErrorUrl"),
        })
    }
}
