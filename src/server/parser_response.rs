//! [`ParserResponse`]: hyper's response to a head that it rejects, with a body.
//!
//! hyper writes such a response itself, with a status and no body, and no service sees the request. An operator who tries
//! the server with `curl` should see the reason, as with every other rejection.

use std::fmt::Write;

/// Header that is replaced by those of the body.
const EMPTY_BODY: &str = "content-length: 0\r\n";

/// A response in place of the one that hyper writes.
pub(super) struct ParserResponse {
    bytes: Vec<u8>,
    written: usize,
    /// Length of hyper's response, which is reported to hyper as written.
    replaced: usize,
}

impl ParserResponse {
    /// Creates the response in place of what hyper writes; `None` if that is not a response without body to a rejected
    /// head. The text of the fault contains no part of the request.
    pub(super) fn new(written: &[u8], fault: Option<&'static str>) -> Option<Self> {
        let head = std::str::from_utf8(written).ok()?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
        let reason = match (status, fault) {
            ("400", Some(fault)) => fault,
            ("400", None) => "the request is not valid HTTP/1.1",
            ("414", _) => "the URI is too long",
            ("431", _) => "the head of the request has too many bytes or headers",
            _ => return None,
        };
        let (before, after) = head.split_once(EMPTY_BODY)?;
        // One response: its only empty line is its end.
        if head.find("\r\n\r\n")? + 4 != head.len() {
            return None;
        }
        let length = reason.len() + 1;
        let mut text = before.to_owned();
        let _ = write!(
            text,
            "content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n{after}{reason}\n"
        );
        Some(Self {
            bytes: text.into_bytes(),
            written: 0,
            replaced: written.len(),
        })
    }

    /// Returns the bytes that are not written yet.
    pub(super) fn remaining(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Records written bytes. Returns the length of hyper's response once all are written.
    pub(super) fn advance(&mut self, bytes: usize) -> Option<usize> {
        self.written += bytes;
        (self.written >= self.bytes.len()).then_some(self.replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &ParserResponse) -> &str {
        std::str::from_utf8(response.remaining()).unwrap()
    }

    #[test]
    fn empty_response_gets_reason_as_body() {
        let head = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let mut response = ParserResponse::new(head, None).unwrap();
        let body = "the head of the request has too many bytes or headers\n";
        assert_eq!(
            text(&response),
            format!(
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
                 content-length: {}\r\ndate: x\r\n\r\n{body}",
                body.len()
            )
        );
        let length = response.remaining().len();
        assert_eq!(response.advance(length - 1), None);
        assert_eq!(text(&response), "\n");
        assert_eq!(response.advance(1), Some(head.len()));
    }

    #[test]
    fn other_writes_stay_as_they_are() {
        for bytes in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 4",
            "",
        ] {
            let response = ParserResponse::new(bytes.as_bytes(), None);
            assert!(response.is_none(), "{bytes:?}");
        }
    }
}
