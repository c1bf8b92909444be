//! [`HeadScanner`]: replaces control characters in the values of headers that this server does not interpret.
//!
//! hyper rejects a request with such a character in any header. A proxy or Twilio may copy a user's text into a header
//! that no program reads, and the message would then be lost. The scanner looks at the bytes before hyper does, and
//! changes single bytes only. So it cannot move the boundaries of a header, a head or a body:
//!
//! - It replaces only control characters other than NUL, CR and LF, by spaces, as RFC 9110 (section 5.5) allows.
//! - It replaces them only in values, after a valid name and its colon. Names, folded lines and the request line stay as
//!   they are, and hyper rejects invalid ones.
//! - Headers that decide on framing, on the connection or on the signature stay as they are.
//! - A body is skipped by its `Content-Length`. If the head has another framing, no header is changed until the connection
//!   is idle.
//!
//! hyper accepts some heads that a proxy in front may read differently, so that a part of one request becomes another
//! request (request smuggling): a line that ends with a bare LF, and two headers that frame the body. There the scanner
//! puts a NUL in place of the LF, or of the second header's colon, and hyper rejects the head. It does so too at the end of a
//! line with the size of a chunk and white space, and hyper rejects the body.

use super::chunk_scanner::{ChunkScanner, ScannedChunks};

/// Maximum length of a header's name. A header with a longer one stays as it is.
const MAX_NAME_BYTES: usize = 64;

/// Headers whose values stay as they are, in addition to Twilio's signatures.
const STRICT_HEADERS: [&[u8]; 7] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"upgrade",
    b"expect",
    b"trailer",
];

/// Reason why hyper is about to reject a head, for the log. It has no byte of the request.
pub(super) type HeadFault = &'static str;

const BARE_LF: HeadFault = "a line of the head ends with LF alone, without CR";
const TWO_FRAMINGS: HeadFault = "Content-Length comes twice, or together with Transfer-Encoding";
const SPACE_AFTER_SIZE: HeadFault = "the size of a chunk is followed by white space";
const INVALID_NAME: HeadFault = "a header has an invalid name, or is folded";

/// Part of the stream that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Empty lines before a request line.
    Start,
    RequestLine,
    /// The name of a header, or the empty line that ends the head.
    Name,
    /// A value in which control characters are replaced.
    Value,
    /// The value of `Content-Length`.
    Length,
    /// The rest of a line that stays as it is.
    StrictLine,
    /// A body with this many bytes left.
    Body(u64),
    /// A body of chunks.
    Chunks(ChunkScanner),
    /// A body of unknown length, and all that follows until the connection is idle.
    Unknown,
}

/// Length of the body that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    /// No header has named one.
    Absent,
    /// The digits so far; none if `Content-Length` is empty until here.
    Digits(Option<u64>),
    /// White space has followed the digits.
    Complete(u64),
    /// `Transfer-Encoding`.
    Chunks,
    /// Several lengths or an invalid one.
    Unknown,
}

/// Scanner of the bytes that one connection receives.
// All state is inline and of fixed size: a head may arrive in any number of reads, and none of them allocates.
#[derive(Debug)]
pub(super) struct HeadScanner {
    part: Part,
    body: BodyLength,
    /// Name of the current header in lower case, as far as it has arrived.
    name: [u8; MAX_NAME_BYTES],
    name_len: usize,
    /// The last byte of the current line was a CR.
    ends_in_cr: bool,
    fault: Option<HeadFault>,
}

impl HeadScanner {
    pub(super) fn new() -> Self {
        Self {
            part: Part::Start,
            body: BodyLength::Absent,
            name: [0; MAX_NAME_BYTES],
            name_len: 0,
            ends_in_cr: false,
            fault: None,
        }
    }

    /// Returns why hyper rejects the head that the connection ends with, if the scanner knows.
    pub(super) fn fault(&self) -> Option<HeadFault> {
        self.fault
    }

    /// Returns whether a part of a head has arrived, and not its end.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(
            self.part,
            Part::RequestLine | Part::Name | Part::Value | Part::Length | Part::StrictLine
        )
    }

    /// Scans received bytes, and replaces single bytes in place. `is_idle` is true if they begin a request.
    pub(super) fn scan(&mut self, bytes: &mut [u8], is_idle: bool) {
        if is_idle && matches!(self.part, Part::Unknown | Part::Chunks(_)) {
            self.part = Part::Start;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.scan_part(rest);
            rest = &mut rest[used..];
        }
    }

    /// Scans bytes up to the end of the current part at most, and returns their number, which is not 0.
    fn scan_part(&mut self, bytes: &mut [u8]) -> usize {
        match self.part {
            Part::Start => {
                if matches!(bytes[0], b'\r' | b'\n') {
                    return 1;
                }
                self.part = Part::RequestLine;
                self.body = BodyLength::Absent;
                self.ends_in_cr = false;
                self.end_of_line(bytes)
            }
            Part::RequestLine => self.end_of_line(bytes),
            Part::StrictLine => {
                let fault = strict_header_fault(&self.name[..self.name_len]);
                let end = self.end_of_line(bytes);
                if fault.is_some() && has_replaced(&bytes[..end]) {
                    self.fault = fault;
                }
                end
            }
            Part::Name => {
                let skipped = self.skip_lines(bytes);
                if skipped > 0 {
                    return skipped;
                }
                self.scan_name(bytes)
            }
            Part::Value => {
                let end = self.end_of_line(bytes);
                let value = &mut bytes[..end];
                // Two passes: most values have no such byte.
                if has_replaced(value) {
                    for byte in value.iter_mut().filter(|byte| is_replaced(**byte)) {
                        *byte = b' ';
                    }
                }
                end
            }
            Part::Length => {
                let end = self.end_of_line(bytes);
                let value = bytes[..end].iter().filter(|byte| **byte != b'\n');
                self.body = value.fold(self.body, |body, byte| body.with(*byte));
                end
            }
            Part::Body(left) => {
                let used = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.begin_body(left - used as u64);
                used
            }
            Part::Chunks(chunks) => match chunks.scan(bytes) {
                ScannedChunks::More(chunks) => {
                    self.part = Part::Chunks(chunks);
                    bytes.len()
                }
                ScannedChunks::End => {
                    self.part = Part::Unknown;
                    bytes.len()
                }
                ScannedChunks::SpaceBefore(index) => self.reject(bytes, index, SPACE_AFTER_SIZE),
            },
            Part::Unknown => bytes.len(),
        }
    }

    /// Returns the number of bytes up to the end of the line. If it is complete, a header or the end of the head follows.
    fn end_of_line(&mut self, bytes: &mut [u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.ends_in_cr = bytes.last() == Some(&b'\r');
            return bytes.len();
        };
        let has_cr = match end {
            0 => self.ends_in_cr,
            end => bytes[end - 1] == b'\r',
        };
        self.ends_in_cr = false;
        if !has_cr {
            return self.reject(bytes, end, BARE_LF);
        }
        self.part = Part::Name;
        self.name_len = 0;
        end + 1
    }

    /// Puts a NUL at an index, so that hyper rejects the head or the body. Returns the number of bytes up to there.
    fn reject(&mut self, bytes: &mut [u8], index: usize, fault: HeadFault) -> usize {
        bytes[index] = 0;
        self.fault = Some(fault);
        // hyper reads no further request of this connection.
        self.part = Part::Unknown;
        index + 1
    }

    /// Returns the length of the complete lines at the start of `bytes` that need no scan: those without a control character,
    /// and without a name that frames a body.
    // Most headers of most requests. A line that begins with a letter of `Content-Length` or `Transfer-Encoding`, or with a
    // line end, is left to the scan.
    fn skip_lines(&self, bytes: &[u8]) -> usize {
        if self.name_len > 0 {
            return 0;
        }
        let mut skipped = 0;
        while let Some(first) = bytes.get(skipped) {
            if matches!(first, b'C' | b'c' | b'T' | b't' | b'\r' | b'\n') {
                break;
            }
            let line = &bytes[skipped..];
            let Some(end) = memchr::memchr(b'\n', line) else {
                break;
            };
            // `end` is not 0, because the line does not begin with LF.
            if line[end - 1] != b'\r' || has_replaced(&line[..end]) {
                break;
            }
            skipped += end + 1;
        }
        skipped
    }

    /// Scans a name up to its colon, or an empty line.
    fn scan_name(&mut self, bytes: &mut [u8]) -> usize {
        for index in 0..bytes.len() {
            match bytes[index] {
                b':' if self.name_len > 0 => {
                    if !self.begin_value() {
                        return self.reject(bytes, index, TWO_FRAMINGS);
                    }
                    return index + 1;
                }
                // hyper accepts a CR here only before the LF, and rejects the request otherwise.
                b'\r' if self.name_len == 0 => self.ends_in_cr = true,
                b'\n' if self.name_len == 0 => {
                    if !self.ends_in_cr {
                        return self.reject(bytes, index, BARE_LF);
                    }
                    self.ends_in_cr = false;
                    self.end_head();
                    return index + 1;
                }
                byte if is_name_byte(byte) && self.name_len < MAX_NAME_BYTES => {
                    self.name[self.name_len] = byte.to_ascii_lowercase();
                    self.name_len += 1;
                }
                // A folded line, or a name that is invalid or too long.
                byte => {
                    self.part = Part::StrictLine;
                    // A name that is only too long for this scanner is valid.
                    if !is_name_byte(byte) {
                        self.fault = Some(INVALID_NAME);
                    }
                    self.name_len = 0;
                    return index + self.end_of_line(&mut bytes[index..]);
                }
            }
        }
        bytes.len()
    }

    /// Begins the value of the current header. Returns false if it frames the body in another way than an earlier one.
    fn begin_value(&mut self) -> bool {
        self.ends_in_cr = false;
        let name = &self.name[..self.name_len];
        let has_length = matches!(self.body, BodyLength::Digits(_) | BodyLength::Complete(_));
        self.part = match name {
            b"content-length" if self.body != BodyLength::Absent => return false,
            // Two codings are not rejected here, but with 501.
            b"transfer-encoding" if has_length => return false,
            b"content-length" => {
                self.body = BodyLength::Digits(None);
                Part::Length
            }
            b"transfer-encoding" => {
                self.body = BodyLength::Chunks;
                Part::StrictLine
            }
            name if is_strict(name) => Part::StrictLine,
            _ => Part::Value,
        };
        true
    }

    fn end_head(&mut self) {
        match self.body {
            BodyLength::Absent => self.begin_body(0),
            BodyLength::Digits(Some(length)) | BodyLength::Complete(length) => {
                self.begin_body(length);
            }
            BodyLength::Chunks => self.part = Part::Chunks(ChunkScanner::START),
            BodyLength::Digits(None) | BodyLength::Unknown => self.part = Part::Unknown,
        }
    }

    fn begin_body(&mut self, length: u64) {
        self.part = if length == 0 {
            Part::Start
        } else {
            Part::Body(length)
        };
    }
}

impl BodyLength {
    /// Returns the length after one more byte of `Content-Length`, without its LF.
    fn with(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Digits(length), b'0'..=b'9') => {
                let length = length.unwrap_or(0).checked_mul(10);
                let length = length.and_then(|length| length.checked_add(u64::from(byte - b'0')));
                length.map_or(Self::Unknown, |length| Self::Digits(Some(length)))
            }
            (Self::Digits(None), b' ' | b'\t') => self,
            (Self::Digits(Some(length)) | Self::Complete(length), b' ' | b'\t' | b'\r') => {
                Self::Complete(length)
            }
            _ => Self::Unknown,
        }
    }
}

/// Returns whether a byte in a value is replaced: a control character that neither ends a line nor a text.
fn is_replaced(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\0' | b'\t' | b'\r' | b'\n')
}

/// Returns whether a byte of a line is replaced if it is in a value.
// Without an early return, so that the compiler vectorizes it.
fn has_replaced(line: &[u8]) -> bool {
    line.iter()
        .fold(false, |any, byte| any | is_replaced(*byte))
}

/// Returns whether a byte may be in the name of a header (RFC 9110, section 5.6.2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether the value of a header stays as it is. The name is in lower case.
fn is_strict(name: &[u8]) -> bool {
    is_signature(name) || STRICT_HEADERS.contains(&name)
}

// `X-Twilio-Signature`, and the names that Twilio has between the two words for other signatures.
fn is_signature(name: &[u8]) -> bool {
    name.starts_with(b"x-twilio-") && name.windows(9).any(|window| window == b"signature")
}

/// Returns the fault of a control character in a header whose value stays as it is.
fn strict_header_fault(name: &[u8]) -> Option<HeadFault> {
    Some(match name {
        b"host" => "a control character in the header Host",
        b"content-length" => "a control character in the header Content-Length",
        b"transfer-encoding" => "a control character in the header Transfer-Encoding",
        b"connection" => "a control character in the header Connection",
        b"upgrade" => "a control character in the header Upgrade",
        b"expect" => "a control character in the header Expect",
        b"trailer" => "a control character in the header Trailer",
        name if is_signature(name) => "a control character in the header of the signature",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a connection's bytes in reads that end at these offsets.
    fn scanned(bytes: &[u8], ends: &[usize]) -> Vec<u8> {
        let mut scanner = HeadScanner::new();
        let mut bytes = bytes.to_vec();
        let mut begin = 0;
        for end in ends.iter().copied().chain([bytes.len()]) {
            scanner.scan(&mut bytes[begin..end], false);
            begin = end;
        }
        bytes
    }

    /// Asserts the bytes after the scan, for one read, and for each way to split them into two or into single bytes.
    #[track_caller]
    fn assert_scanned(bytes: &[u8], expected: &[u8]) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let expected = text(expected.to_vec());
        for end in 0..bytes.len() {
            assert_eq!(text(scanned(bytes, &[end])), expected, "split at {end}");
        }
        let every: Vec<_> = (0..bytes.len()).collect();
        assert_eq!(text(scanned(bytes, &every)), expected);
    }

    #[track_caller]
    fn assert_unchanged(bytes: &[u8]) {
        assert_scanned(bytes, bytes);
    }

    #[test]
    fn control_characters_in_values_become_spaces() {
        assert_scanned(
            b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nX-Twilio-Body: Liked \x1cHi\x7f\r\nX-A:\x01\r\n\r\n",
            b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nX-Twilio-Body: Liked  Hi \r\nX-A: \r\n\r\n",
        );
        // Each request of a pipeline, and none of the bodies.
        assert_scanned(
            b"POST / HTTP/1.1\r\nX-A: \x02\r\nContent-Length: 7 \r\n\r\nX: \x03\r\n\x04GET / HTTP/1.1\r\nX-B: \x05\r\n\r\n",
            b"POST / HTTP/1.1\r\nX-A:  \r\nContent-Length: 7 \r\n\r\nX: \x03\r\n\x04GET / HTTP/1.1\r\nX-B:  \r\n\r\n",
        );
    }

    #[test]
    fn everything_but_uninterpreted_values_is_unchanged() {
        assert_unchanged(b"GET /\x01 HTTP/1.1\r\nX-A\x01: b\r\n\r\n");
        for line in [
            "Host: h\x01",
            "host: h\x01",
            "Content-Length: 1\x01",
            "TRANSFER-ENCODING: \x0bchunked",
            "Connection: close\x01",
            "Upgrade: \x01",
            "Expect: \x01",
            "Trailer: \x01",
            "X-Twilio-Signature: abc\x01",
            "X-Twilio-Webhooks-Signature: abc\x01",
            "X-A : \x01",
            " X-A: \x01",
            "\tfolded: \x01",
            ": \x01",
            "X-A: NUL \0 and CR \r only",
            "X-\u{e4}: \x01",
            &format!("{}: \x01", "X".repeat(65)),
        ] {
            assert_unchanged(format!("GET / HTTP/1.1\r\n{line}\r\n\r\n").as_bytes());
        }
    }

    // After such a head the scanner does not know where the next one begins.
    #[test]
    fn body_of_unknown_length_is_unchanged_until_connection_is_idle() {
        let next = "GET / HTTP/1.1\r\nX-A: \x01\r\n\r\n";
        for framing in [
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: +0\r\n",
            "Content-Length: 0, 0\r\n",
            "Content-Length: 0 0\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{framing}\r\n");
            assert_unchanged(format!("{head}{next}").as_bytes());
            let mut scanner = HeadScanner::new();
            scanner.scan(&mut head.into_bytes(), true);
            let mut bytes = next.as_bytes().to_vec();
            scanner.scan(&mut bytes, true);
            assert_eq!(bytes, b"GET / HTTP/1.1\r\nX-A:  \r\n\r\n", "{framing}");
        }
        assert_unchanged(
            b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nGET / HTTP/1.1\r\nX-A: \x01\r\n\r\n",
        );
    }

    // One byte becomes NUL, with which hyper rejects the head.
    #[test]
    fn bare_line_feed_and_second_framing_become_invalid() {
        let line = "GET / HTTP/1.1\r\n";
        for (head, expected) in [
            (
                "GET / HTTP/1.1\nX-A: \x01\n\n",
                "GET / HTTP/1.1\0X-A: \x01\n\n",
            ),
            (
                "X-A: b\nContent-Length: 4\r\n\r\n",
                "X-A: b\0Content-Length: 4\r\n\r\n",
            ),
            (
                "Cookie: b\nTransfer-Encoding: chunked\r\n\r\n",
                "Cookie: b\0Transfer-Encoding: chunked\r\n\r\n",
            ),
            ("X-A:\nX-B: c\r\n\r\n", "X-A:\0X-B: c\r\n\r\n"),
            ("X-A: b\r\n\n", "X-A: b\r\n\0"),
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
                "Content-Length: 1\r\nContent-Length\0 1\r\n\r\n",
            ),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Content-Length: 1\r\nTransfer-Encoding\0 chunked\r\n\r\n",
            ),
            (
                "Transfer-Encoding: chunked\r\nX-A: b\r\ncontent-length: 1\r\n\r\n",
                "Transfer-Encoding: chunked\r\nX-A: b\r\ncontent-length\0 1\r\n\r\n",
            ),
        ] {
            let begin = if head.starts_with("GET") { "" } else { line };
            assert_scanned(
                format!("{begin}{head}").as_bytes(),
                format!("{begin}{expected}").as_bytes(),
            );
        }
    }
}
