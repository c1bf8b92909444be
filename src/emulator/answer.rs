//! What Twilio makes of an answer to a webhook: a document, a text, nothing, or an error of its debugger.

use super::document::{self, Document};
use crate::error_code::ErrorCode;

/// What Twilio reads of an answer (11750).
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// An answer that Twilio can use.
#[derive(Debug)]
pub(super) enum Usable {
    /// TwiML.
    Document(Document),
    /// `text/plain`: sent to the user as it is.
    Text(String),
    /// Nothing: no reply.
    Nothing,
}

/// Judges a whole answer, `body` being at least as much of it as Twilio reads.
///
/// # Errors
/// The code that Twilio would write into its debugger before it calls the fallback URL.
pub(super) fn judge(
    status: u16,
    content_type: Option<&str>,
    is_chunked: bool,
    body: &[u8],
) -> Result<Usable, ErrorCode> {
    if !(200..300).contains(&status) {
        return Err(ErrorCode(11200));
    }
    if status == 204 {
        return Ok(Usable::Nothing);
    }
    if body.len() > MOST_BYTES {
        return Err(ErrorCode(11750));
    }
    if body.is_empty() {
        // Announced to come in pieces, and then there are none.
        return if is_chunked {
            Err(ErrorCode(11770))
        } else if content_type.is_none() {
            Err(ErrorCode(11200))
        } else {
            Ok(Usable::Nothing)
        };
    }
    let essence = content_type.map(|text| {
        let essence = text.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    });
    match essence.as_deref() {
        None => Err(ErrorCode(11200)),
        Some("text/plain") => Ok(Usable::Text(String::from_utf8_lossy(body).into_owned())),
        Some("text/xml" | "application/xml" | "text/html") => {
            document::parse(body).map(Usable::Document)
        }
        Some(_) => Err(ErrorCode(12300)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_status_type_and_xml() {
        let judged = |status, content_type, body: &str| {
            judge(status, content_type, false, body.as_bytes())
                .err()
                .map(|code| code.0)
        };
        let xml = Some("text/xml; charset=utf-8");
        assert_eq!(judged(200, xml, "<?xml version=\"1.0\"?><Response/>"), None);
        assert_eq!(judged(200, Some("text/plain"), "OK"), None);
        assert_eq!(judged(204, None, ""), None);
        assert_eq!(judged(200, xml, ""), None);
        assert_eq!(judged(403, Some("text/plain"), "no"), Some(11200));
        assert_eq!(judged(200, None, "<Response/>"), Some(11200));
        assert_eq!(judged(200, Some("application/json"), "{}"), Some(12300));
        assert_eq!(judged(200, xml, " <Response/>"), Some(12100));
        assert_eq!(judged(200, xml, "<Response><Message>a & b"), Some(12100));
        assert_eq!(judged(200, xml, "<html></html>"), Some(12102));
        let long = format!("<Response><!--{}--></Response>", "x".repeat(70_000));
        assert_eq!(judged(200, xml, &long), Some(11750));
        assert_eq!(judge(200, xml, true, b"").err(), Some(ErrorCode(11770)));
    }
}
