//! One signed webhook to any URL, in any language's server, with Twilio's time and Twilio's judgement of the answer.

use std::fmt;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use super::answer::judge;
use super::outgoing::{Outgoing, Times, send};
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::secret::Secret;
use crate::signature::{SIGNATURE_HEADER, TokenError, sign};

/// A webhook to be called.
///
/// ```no_run
/// use replyhook::emulator::{Call, call};
/// use replyhook::{Form, Secret};
///
/// # async fn ask() -> Result<(), replyhook::emulator::CallError> {
/// let webhook = Call {
///     url: "http://localhost:3000/sms".to_owned(),
///     signed_url: Some("https://bot.example.com/sms".to_owned()),
///     method: http::Method::POST,
///     form: Form::from_iter([("Body", "hi"), ("From", "+15550001111")]),
///     headers: http::HeaderMap::new(),
/// };
/// let answer = call(&Secret::new("0123456789abcdef0123456789abcdef"), &webhook).await?;
/// println!("HTTP {} in {:?}; in Twilio's debugger: {:?}", answer.status, answer.time, answer.error_code);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Call {
    /// Where it is sent.
    pub url: String,
    /// What it is signed for, if the two differ, as behind a tunnel.
    pub signed_url: Option<String>,
    /// GET, POST or PUT. GET carries the parameters in its query.
    pub method: Method,
    /// The parameters.
    pub form: Form,
    /// Further headers.
    pub headers: HeaderMap,
}

/// What came back.
///
/// What Twilio would think of an answer: see [`Call`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallResult {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
    /// From connecting to the last byte.
    pub time: Duration,
    /// What Twilio would write into its debugger; `None` where it could use the answer.
    pub error_code: Option<ErrorCode>,
}

/// Why nothing came back.
///
/// ```
/// use replyhook::emulator::{Call, CallError, call};
/// use replyhook::{Form, Secret};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let nowhere = Call {
///     url: "ftp://localhost/sms".to_owned(),
///     signed_url: None,
///     method: http::Method::POST,
///     form: Form::default(),
///     headers: http::HeaderMap::new(),
/// };
/// assert!(matches!(call(&Secret::new("token"), &nowhere).await, Err(CallError::Url)));
/// # });
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The token is empty.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The URL is not http or https.
    #[error("not an http or https URL")]
    Url,
    /// The request failed.
    #[error("{reason}")]
    Failed {
        /// As Twilio would call it.
        code: ErrorCode,
        /// What happened.
        reason: String,
    },
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// The request that it is, signed.
    pub(super) fn signed(&self, token: &Secret) -> Result<Outgoing, TokenError> {
        let (signed_url, form) = self.signed_over();
        let signature = sign(token, &signed_url, form)?;
        let mut headers = self.headers.clone();
        // A signature given by hand is a forgery to be tried: ours would make it two.
        if !headers.contains_key(SIGNATURE_HEADER) {
            let value = HeaderValue::try_from(signature).expect("base64 is a header's value");
            headers.insert(SIGNATURE_HEADER, value);
        }
        let body = form.map_or_else(String::new, Form::encode);
        if form.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        Ok(Outgoing {
            method: self.method.clone(),
            url: self.with_query(&self.url),
            headers,
            body,
        })
    }

    /// The URL and the parameters of the body, which the signature is over.
    pub(super) fn signed_over(&self) -> (String, Option<&Form>) {
        let url = self.signed_url.as_deref().unwrap_or(&self.url);
        let has_body = self.method != Method::GET;
        (self.with_query(url), has_body.then_some(&self.form))
    }

    fn with_query(&self, url: &str) -> String {
        let url = url.split('#').next().unwrap_or_default();
        if self.method != Method::GET || self.form.is_empty() {
            return url.to_owned();
        }
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}{}", self.form.encode())
    }
}

/// Calls a webhook once.
///
/// In use: see [`Call`].
///
/// # Errors
/// [`CallError`] when there was no answer.
pub async fn call(token: &Secret, call: &Call) -> Result<CallResult, CallError> {
    let (time, answer) = send(&call.signed(token)?, Times::DEFAULT).await;
    let answer = answer.map_err(|failed| match failed.code {
        ErrorCode(11100) => CallError::Url,
        code => CallError::Failed {
            code,
            reason: failed.to_string(),
        },
    })?;
    let content_type = answer.content_type().map(str::to_owned);
    let judged = judge(
        answer.status,
        content_type.as_deref(),
        answer.is_chunked(),
        &answer.body,
    );
    Ok(CallResult {
        status: answer.status,
        content_type,
        headers: answer.headers,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        time,
        error_code: judged.err(),
    })
}
