//! Single signed webhook request to any URL, with Twilio's timeouts and Twilio's check of the response.

use std::fmt;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use super::http_client::{HttpRequest, Timeouts, send};
use super::response_check::check_response;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;
use replyhook_core::signature::{
    SIGNATURE_HEADER, SIGNATURE_SETTINGS_HEADER, SigningKey, TokenError,
};

/// Webhook request, to be signed and sent by [`send_signed`], or sent without a signature by [`send_unsigned`].
///
/// ```no_run
/// use replyhook::emulator::{SignedRequest, send_signed};
/// use replyhook::{FormParams, Secret};
///
/// # async fn run() -> Result<(), replyhook::emulator::SignedRequestError> {
/// let request = SignedRequest {
///     url: "http://localhost:3000/sms".to_owned(),
///     signed_url: Some("https://bot.example.com/sms".to_owned()),
///     method: http::Method::POST,
///     form: FormParams::from_iter([("Body", "hi"), ("From", "+15550001111")]),
///     headers: http::HeaderMap::new(),
/// };
/// let response = send_signed(&Secret::new("0123456789abcdef0123456789abcdef"), &request).await?;
/// println!("HTTP {} in {:?}, Twilio error: {:?}", response.status, response.time, response.error_code);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SignedRequest {
    /// URL to send the request to.
    pub url: String,
    /// URL to sign, if it differs from `url`, as behind a tunnel.
    pub signed_url: Option<String>,
    /// Method: GET, POST or PUT. GET sends the parameters in the query.
    pub method: Method,
    /// Parameters.
    pub form: FormParams,
    /// Additional headers. A signature among them replaces the computed one.
    pub headers: HeaderMap,
}

/// Response to a [`SignedRequest`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignedResponse {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
    /// Time from connecting to the last byte.
    pub time: Duration,
    /// Code that Twilio would write into its debugger, or `None` if Twilio could use the response.
    pub error_code: Option<ErrorCode>,
}

/// Error of [`send_signed`]: no response.
///
/// ```
/// use replyhook::emulator::{SignedRequest, SignedRequestError, send_signed};
/// use replyhook::{FormParams, Secret};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let request = SignedRequest {
///     url: "ftp://localhost/sms".to_owned(),
///     signed_url: None,
///     method: http::Method::POST,
///     form: FormParams::default(),
///     headers: http::HeaderMap::new(),
/// };
/// let result = send_signed(&Secret::new("token"), &request).await;
/// assert!(matches!(result, Err(SignedRequestError::Url)));
/// # });
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignedRequestError {
    /// The token is empty.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The URL is not http or https.
    #[error("not an http or https URL")]
    Url,
    /// The request failed.
    #[error("{reason}")]
    Failed {
        /// Code that Twilio would report.
        code: ErrorCode,
        /// Cause.
        reason: String,
    },
}

/// Hides URL and headers, which may contain passwords.
impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest")
            .field("method", &self.method)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl SignedRequest {
    /// Builds the HTTP request and signs it; `settings_header` names the key, if it is a shared key.
    pub(super) fn to_http_request(
        &self,
        key: &SigningKey,
        settings_header: Option<String>,
    ) -> Result<HttpRequest, TokenError> {
        let (signed_url, form) = self.signed_parts();
        let signature = key.sign(&signed_url, form)?;
        let mut request = self.to_unsigned_http_request();
        if let Some(settings) = settings_header {
            let settings =
                HeaderValue::try_from(settings).expect("the ID of a key is a valid header value");
            request.headers.insert(SIGNATURE_SETTINGS_HEADER, settings);
        }
        // Keep a given signature, with which the caller tests a rejection. A second header would change the test.
        if !request.headers.contains_key(SIGNATURE_HEADER) {
            let value = HeaderValue::try_from(signature).expect("base64 is a valid header value");
            request.headers.insert(SIGNATURE_HEADER, value);
        }
        Ok(request)
    }

    fn to_unsigned_http_request(&self) -> HttpRequest {
        let (_, form) = self.signed_parts();
        let mut headers = self.headers.clone();
        let body = form.map_or_else(String::new, FormParams::encode);
        if form.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        HttpRequest {
            method: self.method.clone(),
            url: self.with_query(&self.url),
            headers,
            body,
        }
    }

    /// Returns the URL and body parameters that the signature covers. With GET, the parameters are part of the URL.
    pub(super) fn signed_parts(&self) -> (String, Option<&FormParams>) {
        let url = self.signed_url.as_deref().unwrap_or(&self.url);
        let has_body = self.method != Method::GET;
        (self.with_query(url), has_body.then_some(&self.form))
    }

    fn with_query(&self, url: &str) -> String {
        // The fragment is neither sent nor signed.
        let url = url.split('#').next().unwrap_or_default();
        if self.method != Method::GET || self.form.is_empty() {
            return url.to_owned();
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}{}", self.form.encode())
    }
}

/// Signs a request with an auth token or another [`SigningKey`], and sends it once, without following redirects.
///
/// See [`SignedRequest`] for an example.
///
/// # Errors
/// [`SignedRequestError`] if the token or URL is invalid, or without a response.
pub async fn send_signed(
    key: impl Into<SigningKey>,
    request: &SignedRequest,
) -> Result<SignedResponse, SignedRequestError> {
    let key = key.into();
    send_request(&request.to_http_request(&key, key.settings_header())?).await
}

/// Sends a request once without a signature, to test that a server rejects it.
///
/// ```no_run
/// # use replyhook::emulator::{SignedRequest, SignedRequestError, send_unsigned};
/// # async fn run(request: SignedRequest) -> Result<(), SignedRequestError> {
/// let response = send_unsigned(&request).await?;
/// assert_eq!(response.status, 403);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`SignedRequestError`] if the URL is invalid, or without a response.
pub async fn send_unsigned(request: &SignedRequest) -> Result<SignedResponse, SignedRequestError> {
    send_request(&request.to_unsigned_http_request()).await
}

async fn send_request(request: &HttpRequest) -> Result<SignedResponse, SignedRequestError> {
    let (time, result) = send(request, Timeouts::DEFAULT).await;
    let response = result.map_err(|error| match error.code {
        // reqwest rejects such a URL before it connects.
        ErrorCode(11100) => SignedRequestError::Url,
        code => SignedRequestError::Failed {
            code,
            reason: error.to_string(),
        },
    })?;
    let content_type = response.content_type().map(str::to_owned);
    let check = check_response(
        response.status,
        content_type.as_deref(),
        response.is_chunked(),
        &response.body,
    );
    Ok(SignedResponse {
        status: response.status,
        content_type,
        headers: response.headers,
        body: String::from_utf8_lossy(&response.body).into_owned(),
        time,
        error_code: check.err(),
    })
}
