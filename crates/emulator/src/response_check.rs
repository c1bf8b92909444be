//! Check of webhook responses as Twilio does it: TwiML, plain text, no reply, or an error code.

use replyhook_core::error_code::ErrorCode;
use replyhook_core::twiml::interpreter::{self, TwimlVerdict};

/// Maximum size of a response body in bytes; larger ones are 11750.
pub(super) const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Response that Twilio can use.
#[derive(Debug)]
pub(super) enum CheckedResponse {
    /// TwiML document.
    Document(TwimlVerdict),
    /// Text of a `text/plain` response, sent to the user unchanged.
    Text(String),
    /// Empty response: no reply.
    NoReply,
}

/// Returns the error code of a status that is not a success: a redirect that Twilio does not follow, or an error.
pub(super) fn status_error_code(status: u16) -> Option<ErrorCode> {
    match status {
        200..300 => None,
        300..400 => Some(ErrorCode(11216)),
        400..600 => Some(ErrorCode(11217)),
        _ => Some(ErrorCode(11200)),
    }
}

/// Checks a response. `body` may be cut off anywhere above [`MAX_RESPONSE_BYTES`].
///
/// # Errors
/// The code that Twilio writes into its debugger before it calls the fallback URL.
pub(super) fn check_response(
    status: u16,
    content_type: Option<&str>,
    is_chunked: bool,
    body: &[u8],
) -> Result<CheckedResponse, ErrorCode> {
    if let Some(code) = status_error_code(status) {
        return Err(code);
    }
    if status == 204 {
        return Ok(CheckedResponse::NoReply);
    }
    if body.len() > MAX_RESPONSE_BYTES {
        return Err(ErrorCode(11750));
    }
    if body.is_empty() {
        // An empty body is valid, unless it is chunked (11770) or has no content type (11200).
        return if is_chunked {
            Err(ErrorCode(11770))
        } else if content_type.is_none() {
            Err(ErrorCode(11200))
        } else {
            Ok(CheckedResponse::NoReply)
        };
    }
    let essence = content_type.map(|text| {
        let essence = text.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    });
    match essence.as_deref() {
        None => Err(ErrorCode(11200)),
        Some("text/plain") => Ok(CheckedResponse::Text(
            String::from_utf8_lossy(body).into_owned(),
        )),
        // Twilio parses HTML as TwiML. An HTML error page gets 12100 or 12102.
        Some("text/xml" | "application/xml" | "text/html") => {
            interpreter::parse(body).map(CheckedResponse::Document)
        }
        Some(_) => Err(ErrorCode(12300)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The emulator checks status, content type, size and XML as Twilio does.
    #[test]
    fn webhook_response_check_returns_twilio_error_code() {
        let error_code = |status, content_type, body: &str| {
            check_response(status, content_type, false, body.as_bytes())
                .err()
                .map(|code| code.0)
        };
        let xml = Some("text/xml; charset=utf-8");
        assert_eq!(
            error_code(200, xml, "<?xml version=\"1.0\"?><Response/>"),
            None
        );
        assert_eq!(error_code(200, Some("text/plain"), "OK"), None);
        assert_eq!(error_code(204, None, ""), None);
        assert_eq!(error_code(200, xml, ""), None);
        assert_eq!(error_code(403, Some("text/plain"), "no"), Some(11217));
        assert_eq!(error_code(429, None, ""), Some(11217));
        assert_eq!(error_code(304, None, ""), Some(11216));
        assert_eq!(error_code(600, xml, "<Response/>"), Some(11200));
        assert_eq!(error_code(200, None, "<Response/>"), Some(11200));
        assert_eq!(error_code(200, Some("application/json"), "{}"), Some(12300));
        assert_eq!(error_code(200, xml, " <Response/>"), Some(12100));
        assert_eq!(
            error_code(200, xml, "<Response><Message>a & b"),
            Some(12100)
        );
        assert_eq!(error_code(200, xml, "<html></html>"), Some(12102));
        let long = format!("<Response><!--{}--></Response>", "x".repeat(70_000));
        assert_eq!(error_code(200, xml, &long), Some(11750));
        assert_eq!(
            check_response(200, xml, true, b"").err(),
            Some(ErrorCode(11770))
        );
    }
}
