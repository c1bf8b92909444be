//! A captured request, as [`Explanation`](super::Explanation) takes it.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::verifier::UnverifiedRequest;

/// Maximum size of a capture. A HAR file contains the other requests of a page too.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of the captured request's URL and body together.
pub(super) const MAX_REQUEST_BYTES: usize = 1024 * 1024;

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
