//! Captured requests: parses a curl command, a HAR file or raw HTTP for [`Explanation`](super::Explanation).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::curl::parse_curl;
use super::verifier::UnverifiedRequest;

/// Maximum size of a capture. A HAR file contains the other requests of a page too.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of the captured request's URL and body together.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// A captured request, from a file, the clipboard or a command line.
///
/// ```
/// use replyhook::signature::CapturedRequest;
///
/// let request = CapturedRequest::parse("curl 'https://bot.example.com/webhook?a=1' -H 'X-Tag: new' -d 'Body=hi'")?;
/// assert_eq!(request.method, http::Method::POST);
/// assert_eq!((request.target(), &request.headers["x-tag"]), ("/webhook?a=1", &"new".parse()?));
/// assert_eq!(request.body, b"Body=hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CapturedRequest {
    /// GET, POST or PUT.
    pub method: Method,
    /// URL of the request; path and query only if the capture has no more, as with raw HTTP.
    pub url: String,
    /// All headers.
    pub headers: HeaderMap,
    /// Raw body.
    pub body: Vec<u8>,
}

/// Error of a text that is not a captured request. It contains at most the name of an option, header or file.
///
/// ```
/// use replyhook::signature::{CapturedError, CapturedRequest};
///
/// assert_eq!(CapturedRequest::parse("hello").err(), Some(CapturedError::Unknown));
/// assert_eq!(CapturedRequest::parse("curl 'https://bot.example.com").err(), Some(CapturedError::Quote));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapturedError {
    /// The text has none of the known formats.
    #[error(
        "not a request: expected a curl command, a HAR file, or raw HTTP that begins with `POST /path HTTP/1.1`"
    )]
    Unknown,
    /// The text is JSON, but not a HAR file.
    #[error("not a HAR file: {0}")]
    Har(String),
    /// The curl command has no URL.
    #[error("the curl command has no URL")]
    NoUrl,
    /// A quote of the curl command is not closed.
    #[error("unterminated quote in the curl command")]
    Quote,
    /// The value of the last option is missing.
    #[error("the curl command ends after {0}, which needs a value")]
    MissingValue(String),
    /// A header is malformed.
    #[error("header {0} is malformed: expected \"Name: value\"")]
    Header(String),
    /// There are more headers than a header map can hold.
    #[error("too many headers")]
    TooManyHeaders,
    /// The curl command reads the body from a file.
    #[error(
        "the body is in a file ({0} in the curl command); pass the file with --body-file, and the rest with --url and --header"
    )]
    BodyInFile(String),
    /// The curl command is quoted for `cmd.exe`.
    #[error("the curl command is quoted for cmd.exe; copy it as cURL (bash)")]
    Windows,
    /// The capture, or its request, is too large.
    #[error(
        "too large for a webhook: over {MAX_BYTES} bytes, or over {MAX_REQUEST_BYTES} bytes of URL and body"
    )]
    TooLarge,
    /// The method is malformed.
    #[error("the method is malformed")]
    Method,
}

impl CapturedRequest {
    /// Parses a curl command, as browsers and proxies copy it, a HAR file, or raw HTTP/1.1.
    ///
    /// A HAR file yields its last request with a signature header, or else its last request.
    ///
    /// # Errors
    /// [`CapturedError`] if the text has none of these formats, is incomplete or too large.
    pub fn parse(text: &str) -> Result<Self, CapturedError> {
        if text.len() > MAX_BYTES {
            return Err(CapturedError::TooLarge);
        }
        // Editors on Windows save a byte order mark, which would hide the format.
        let text = text.trim_start_matches('\u{FEFF}').trim_start();
        let mut request = match text {
            _ if text.starts_with('{') => parse_har(text)?,
            _ if text.starts_with("curl") => parse_curl(text)?,
            _ => parse_raw_http(text)?,
        };
        // A second, lower limit: verifying and explaining take time in proportion to URL and body.
        if request.url.len() + request.body.len() > MAX_REQUEST_BYTES {
            return Err(CapturedError::TooLarge);
        }
        request.add_host();
        Ok(request)
    }

    /// Adds the `Host` header that a client derives from an absolute URL, unless the request has one.
    pub fn add_host(&mut self) {
        let authority = self
            .url
            .split_once("://")
            .and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
        if let Some(host) = authority.and_then(|authority| authority.rsplit('@').next())
            && !self.headers.contains_key(http::header::HOST)
            && let Ok(host) = HeaderValue::from_str(host)
        {
            self.headers.insert(http::header::HOST, host);
        }
    }

    /// Returns path and query of the URL.
    pub fn target(&self) -> &str {
        let rest = self
            .url
            .split_once("://")
            .map_or(self.url.as_str(), |(_, rest)| rest);
        // The URL of a raw HTTP request has no origin, and is the target already.
        let rest = if self.url.contains("://") {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        } else {
            rest
        };
        rest.split('#').next().unwrap_or_default()
    }

    /// Returns the request in the form that a verifier takes.
    pub fn unverified(&self) -> UnverifiedRequest<'_> {
        UnverifiedRequest {
            method: &self.method,
            target: self.target(),
            headers: &self.headers,
            body: &self.body,
        }
    }

    /// Adds a header written as `Name: value`.
    ///
    /// # Errors
    /// [`CapturedError::Header`] if the line is malformed, [`CapturedError::TooManyHeaders`] if there are too many.
    pub fn push_header(&mut self, line: &str) -> Result<(), CapturedError> {
        // Browsers save the pseudo-headers of HTTP/2, such as `:method`, among the headers.
        if line.starts_with(':') {
            return Ok(());
        }
        // curl writes `Name;` for a header without a value.
        let (name, value) = line
            .split_once(':')
            .or_else(|| Some((line.strip_suffix(';')?, "")))
            .unwrap_or((line, ""));
        // Show only the name, and escape it: the value may be private, and a hostile name could control the terminal.
        let malformed =
            || CapturedError::Header(format!("{:?}", name.chars().take(40).collect::<String>()));
        if name.len() == line.len() {
            return Err(malformed());
        }
        let parsed = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| malformed())?;
        self.headers
            .try_append(parsed, value)
            .map(drop)
            .map_err(|_| CapturedError::TooManyHeaders)
    }
}

impl fmt::Debug for CapturedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturedRequest")
            .field("method", &self.method)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Parses raw HTTP/1.1, with either line ending.
fn parse_raw_http(text: &str) -> Result<CapturedRequest, CapturedError> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .or_else(|| text.split_once("\n\n"))
        .unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version)) = (first.next(), first.next(), first.next())
    else {
        return Err(CapturedError::Unknown);
    };
    if !version.starts_with("HTTP/") {
        return Err(CapturedError::Unknown);
    }
    let mut request = CapturedRequest {
        method: method.parse().map_err(|_| CapturedError::Method)?,
        url: target.to_owned(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    for line in lines {
        request.push_header(line)?;
    }
    // Editors add a line feed at the end of a file, which was not part of the body. `Content-Length` tells if there is
    // one.
    let length = request
        .headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let body = length
        // `get`: a capture may be cut off before its `Content-Length`.
        .and_then(|length: usize| body.as_bytes().get(..length))
        .unwrap_or_else(|| body.trim_end_matches(['\r', '\n']).as_bytes());
    request.body = body.to_vec();
    Ok(request)
}

#[derive(Deserialize)]
struct Har {
    log: HarLog,
}

#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
struct HarEntry {
    request: HarRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    headers: Vec<HarPair>,
    post_data: Option<HarBody>,
}

#[derive(Deserialize)]
struct HarPair {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct HarBody {
    text: Option<String>,
    #[serde(default)]
    params: Vec<HarPair>,
}

fn parse_har(text: &str) -> Result<CapturedRequest, CapturedError> {
    // Only the position of the error: serde's message can quote the content.
    let har: Har = serde_json::from_str(text).map_err(|error| {
        CapturedError::Har(format!("line {}, column {}", error.line(), error.column()))
    })?;
    let requests = || har.log.entries.iter().map(|entry| &entry.request).rev();
    let has_signature = |request: &&HarRequest| {
        request
            .headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(super::SIGNATURE_HEADER))
    };
    let found = requests().find(has_signature).or_else(|| requests().next());
    let found = found.ok_or_else(|| CapturedError::Har("no entries".to_owned()))?;
    let mut request = CapturedRequest {
        method: found.method.parse().map_err(|_| CapturedError::Method)?,
        url: found.url.clone(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    for header in &found.headers {
        request.push_header(&format!("{}:{}", header.name, header.value))?;
    }
    if let Some(body) = &found.post_data {
        // `text` is the raw body. Tools that omit it list the decoded parameters instead.
        request.body = match &body.text {
            Some(text) => text.clone().into_bytes(),
            None => body
                .params
                .iter()
                .map(|pair| (&pair.name, &pair.value))
                .collect::<crate::FormParams>()
                .encode()
                .into_bytes(),
        };
    }
    Ok(request)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns method, target, number of headers and body.
    pub(in crate::signature) fn parsed(text: &str) -> (String, String, usize, String) {
        let request = CapturedRequest::parse(text).unwrap();
        let body = String::from_utf8(request.body.clone()).unwrap();
        (
            request.method.to_string(),
            request.target().to_owned(),
            request.headers.len(),
            body,
        )
    }

    pub(in crate::signature) fn expected(
        method: &str,
        target: &str,
        headers: usize,
        body: &str,
    ) -> (String, String, usize, String) {
        (
            method.to_owned(),
            target.to_owned(),
            headers,
            body.to_owned(),
        )
    }

    // Editors add a line feed when they save a captured request.
    #[test]
    fn raw_http_without_content_length_drops_final_newline() {
        let text = "POST /webhook HTTP/1.1\nHost: h.test\nContent-Type: application/x-www-form-urlencoded\n\nBody=x\n";
        assert_eq!(parsed(text), expected("POST", "/webhook", 2, "Body=x"));
        let exact = "POST /w HTTP/1.1\r\nContent-Length: 7\r\n\r\nBody=x\n";
        assert_eq!(parsed(exact), expected("POST", "/w", 1, "Body=x\n"));
    }

    #[test]
    fn har_file_yields_last_signed_request() {
        let entry = |url: &str, header: &str| {
            format!(
                r#"{{"request":{{"method":"POST","url":"{url}","headers":[{{"name":":path","value":"/"}},{{"name":"{header}","value":"v"}}],"postData":{{"mimeType":"x","params":[{{"name":"Body","value":"a b"}}]}}}}}}"#
            )
        };
        let har = format!(
            r#"{{"log":{{"entries":[{},{}]}}}}"#,
            entry("https://h.test/a", "X-Twilio-Signature"),
            entry("https://h.test/b", "Accept")
        );
        assert_eq!(parsed(&har), expected("POST", "/a", 2, "Body=a+b"));
    }

    #[test]
    fn invalid_capture_is_rejected_with_reason() {
        let error = |text| CapturedRequest::parse(text).unwrap_err().to_string();
        assert_eq!(error("curl"), "the curl command has no URL");
        assert_eq!(
            error("curl 'https://h"),
            "unterminated quote in the curl command"
        );
        assert_eq!(
            error("curl https://h -H"),
            "the curl command ends after -H, which needs a value"
        );
        assert_eq!(error("{\"log\":1}"), "not a HAR file: line 1, column 8");
        assert!(error("hello").starts_with("not a request"));
    }

    proptest! {
        #[test]
        fn captured_request_parse_never_panics(text in "(curl |\\{|POST / HTTP/1.1\n)?\\PC{0,200}") {
            if let Ok(request) = CapturedRequest::parse(&text) {
                let _ = request.target();
            }
        }
    }
}
