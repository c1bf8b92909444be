//! The signature verifier as a tower layer, for replyhook's router and for your own.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, routing::post};
//! use replyhook::Secret;
//! use replyhook::signature::{PublicUrl, SignatureLayer, SignatureVerifier, SignedForm};
//!
//! async fn hook(form: SignedForm) -> String {
//!     format!("{} parameters, all signed by Twilio", form.params().len())
//! }
//!
//! let (url, _) = PublicUrl::parse("https://example.com")?;
//! let verifier = SignatureVerifier::new(url, [Secret::new("0123456789abcdef0123456789abcdef")])?;
//! let app: Router = Router::new().route("/hook", post(hook)).layer(SignatureLayer::new(Arc::new(verifier)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Deployment caveat
//!
//! The layer verifies path and query as received. Middleware outside the layer must neither rewrite the URI nor read
//! the body: that would invalidate every signature.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, OriginalUri};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use tower::{Layer, Service};

use super::body_blocks::BodyBlocks;
use super::explain::Explanation;
use super::headers::SignatureHeaders;
use super::signature_error::{SignatureError, SignatureErrorKind};
use super::token::AuthTokenKind;
use super::verifier::{SignatureVerifier, UnverifiedRequest, Verified};
use crate::form::{FormError, FormParams};

/// Limits of a request that is not verified yet.
///
/// ```
/// use replyhook::signature::RequestLimits;
///
/// let mut limits = RequestLimits::default();
/// assert_eq!(limits.max_body_bytes, 128 * 1024);
/// limits.max_body_bytes = 64 * 1024;
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Maximum size of a body. A text of 1600 characters of four bytes each has 20 kB when it is encoded.
    pub max_body_bytes: usize,
    /// Maximum time until the whole body is received.
    pub body_timeout: Duration,
    /// Maximum length of path and query. With GET they contain all parameters, percent-encoded.
    pub max_uri_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 128 * 1024,
            body_timeout: Duration::from_secs(5),
            max_uri_bytes: 48 * 1024,
        }
    }
}

/// Reason of a rejected request. The response has it in its extensions.
///
/// ```
/// use replyhook::signature::RejectionReason;
///
/// assert_eq!(RejectionReason::BodyTooLarge.status(), http::StatusCode::PAYLOAD_TOO_LARGE);
/// assert_eq!(RejectionReason::BodyTooLarge.to_string(), "body too large");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectionReason {
    /// The method is not GET, POST or PUT.
    #[error("method not allowed")]
    Method,
    /// Path and query are too long.
    #[error("URI too long")]
    UriTooLong,
    /// The body is too large.
    #[error("body too large")]
    BodyTooLarge,
    /// The body was not received in time.
    #[error("body too slow")]
    BodyTooSlow,
    /// The connection broke off before the end of the body.
    #[error("body broke off")]
    BodyBroken,
    /// The request was dropped, because the bytes of all unverified requests together exceeded their budget, or because
    /// the connection was closed for another one.
    #[error("overloaded")]
    Overloaded,
    /// The signature is missing or not valid, or the signed content cannot be read.
    #[error(transparent)]
    Signature(SignatureError),
}

impl RejectionReason {
    /// Returns the status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Signature(error) => match error.kind() {
                SignatureErrorKind::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                SignatureErrorKind::Form(FormError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
                SignatureErrorKind::Form(_) | SignatureErrorKind::Reshaped => {
                    StatusCode::BAD_REQUEST
                }
                SignatureErrorKind::MissingHeader
                | SignatureErrorKind::RepeatedHeader
                | SignatureErrorKind::MalformedHeader
                | SignatureErrorKind::SettingsHeader(_)
                | SignatureErrorKind::UnknownSharedKey
                | SignatureErrorKind::Mismatch
                | SignatureErrorKind::BodyHash
                | SignatureErrorKind::UnknownAccount => StatusCode::FORBIDDEN,
            },
        }
    }

    /// Returns the body of the response.
    fn text(self) -> &'static str {
        // Deliberately vague: the client is not authenticated, and an attacker must not learn which part of the
        // signature was wrong or which accounts exist.
        match self {
            Self::Method => "method not allowed\n",
            Self::UriTooLong => "URI too long\n",
            Self::BodyTooLarge => "body too large\n",
            Self::BodyTooSlow => "body too slow\n",
            Self::BodyBroken => "body broke off\n",
            Self::Overloaded => "overloaded\n",
            Self::Signature(_) => match self.status() {
                StatusCode::FORBIDDEN => "signature not valid\n",
                StatusCode::UNSUPPORTED_MEDIA_TYPE => "not a form\n",
                _ => "malformed form\n",
            },
        }
    }
}

/// A rejected request, as passed to the hook of [`SignatureLayer::on_rejection`].
///
/// See [`SignatureLayer`] for an example.
#[derive(Debug)]
pub struct Rejection<'a> {
    /// Reason of the rejection.
    pub reason: RejectionReason,
    /// Head of the request. Its content is not verified.
    pub head: &'a Parts,
    verifier: &'a SignatureVerifier,
    target: &'a str,
    body: &'a [u8],
}

impl Rejection<'_> {
    /// Explains the failed signature; `None` if the request was rejected before its signature was checked.
    ///
    /// An explanation costs up to a few thousand HMACs, so limit the rate of calls.
    pub fn explain(&self) -> Option<Explanation> {
        let RejectionReason::Signature(_) = self.reason else {
            return None;
        };
        Some(self.verifier.explain(&UnverifiedRequest {
            method: &self.head.method,
            target: self.target,
            headers: &self.head.headers,
            body: self.body,
        }))
    }
}

type OnRejection = dyn Fn(&Rejection<'_>) -> Option<String> + Send + Sync;

/// Tower layer that passes signed requests on, with their [`SignedForm`] in the extensions, and rejects all others.
///
/// ```
/// use std::sync::Arc;
/// use axum::{Router, body::Body, http::Request, routing::post};
/// use replyhook::signature::{PublicUrl, SignatureLayer, SignatureVerifier, SignedForm};
/// use tower::ServiceExt;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
/// let verifier = SignatureVerifier::new(url, ["0123456789abcdef0123456789abcdef".into()])?;
/// let layer = SignatureLayer::new(Arc::new(verifier)).on_rejection(|rejection| {
///     println!("{}: {}", rejection.head.uri.path(), rejection.reason);
///     None
/// });
/// let hook = post(|form: SignedForm| async move { form.params().len().to_string() });
/// let app = Router::new().route("/sms", hook).layer(layer);
/// let forged = Request::post("/sms").body(Body::from("Body=hi"))?;
/// assert!(app.oneshot(forged).await?.status().is_client_error());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct SignatureLayer {
    state: Arc<LayerState>,
}

type VerifierSource = dyn Fn() -> Arc<SignatureVerifier> + Send + Sync;

#[derive(Clone)]
struct LayerState {
    verifier: Arc<VerifierSource>,
    limits: RequestLimits,
    on_rejection: Option<Arc<OnRejection>>,
}

impl SignatureLayer {
    /// Creates a layer with the default limits and without a rejection hook.
    pub fn new(verifier: Arc<SignatureVerifier>) -> Self {
        Self::with_verifier_of(move || verifier.clone())
    }

    /// Creates a layer that calls `source` for the verifier of each request, at its beginning. So a program can replace
    /// tokens while it runs.
    ///
    /// ```
    /// use std::sync::{Arc, RwLock};
    /// use replyhook::Secret;
    /// use replyhook::signature::{PublicUrl, SignatureLayer, SignatureVerifier};
    ///
    /// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
    /// let verifier = |token: &str| SignatureVerifier::new(url.clone(), [Secret::new(token)]).map(Arc::new);
    /// let current = Arc::new(RwLock::new(verifier("0123456789abcdef0123456789abcdef")?));
    /// let source = current.clone();
    /// let layer = SignatureLayer::with_verifier_of(move || source.read().expect("no panic").clone());
    /// // Later, once Twilio signs with another token:
    /// *current.write().expect("no panic") = verifier("ffffffffffffffffffffffffffffffff")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_verifier_of(
        source: impl Fn() -> Arc<SignatureVerifier> + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Arc::new(LayerState {
                verifier: Arc::new(source),
                limits: RequestLimits::default(),
                on_rejection: None,
            }),
        }
    }

    /// Sets the limits of unverified requests.
    #[must_use]
    pub fn with_limits(mut self, limits: RequestLimits) -> Self {
        Arc::make_mut(&mut self.state).limits = limits;
        self
    }

    /// Sets a hook that is called for every rejected request. A text that it returns becomes the body of the response.
    /// The client is not authenticated, so return a text only if it may be public.
    #[must_use]
    pub fn on_rejection(
        mut self,
        hook: impl Fn(&Rejection<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.state).on_rejection = Some(Arc::new(hook));
        self
    }
}

impl fmt::Debug for SignatureLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureLayer")
            .field("verifier", &(self.state.verifier)())
            .field("limits", &self.state.limits)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for SignatureLayer {
    type Service = VerifySignature<S>;

    fn layer(&self, inner: S) -> VerifySignature<S> {
        VerifySignature {
            inner,
            state: self.state.clone(),
        }
    }
}

/// Service of [`SignatureLayer`].
#[derive(Clone)]
pub struct VerifySignature<S> {
    inner: S,
    state: Arc<LayerState>,
}

impl<S: fmt::Debug> fmt::Debug for VerifySignature<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifySignature")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S> Service<Request<Body>> for VerifySignature<S>
where
    S: Service<Request<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.state.clone();
        // The service that was polled ready must be the one that is called; its clone may not be ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match state.admit(&head, body).await {
                Ok(verified) => {
                    // A verified connection is not evicted at the connection limit while it has a request in flight.
                    // False: it was evicted, or its request dropped, before. The client may then not get the response,
                    // so the message must not be handled.
                    if let Some(connection) = head.extensions.get::<Arc<dyn ConnectionHooks>>()
                        && !connection.record_verified()
                    {
                        return Ok(rejection_response(
                            RejectionReason::Overloaded,
                            &head.method,
                            None,
                        ));
                    }
                    head.extensions.insert(SignedForm(verified));
                    inner
                        .call(Request::from_parts(head, Body::empty()))
                        .await
                        .map(IntoResponse::into_response)
                }
                Err(response) => Ok(response),
            }
        })
    }
}

impl LayerState {
    async fn admit(&self, head: &Parts, body: Body) -> Result<Arc<Verified>, Response> {
        // axum strips the prefix of nested routers from `head.uri`; Twilio signs the original one.
        let uri = head
            .extensions
            .get::<OriginalUri>()
            .map_or(&head.uri, |original| &original.0);
        let target = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        // Once for each request, before its body: a verifier that is replaced in the meantime does not reject it.
        let verifier = (self.verifier)();
        let reject = |reason, body: &[u8]| {
            let rejection = Rejection {
                reason,
                head,
                verifier: &verifier,
                target,
                body,
            };
            let text = self.on_rejection.as_ref().and_then(|hook| hook(&rejection));
            rejection_response(reason, &head.method, text)
        };
        if !matches!(head.method, Method::GET | Method::POST | Method::PUT) {
            return Err(reject(RejectionReason::Method, b""));
        }
        if target.len() > self.limits.max_uri_bytes {
            return Err(reject(RejectionReason::UriTooLong, b""));
        }
        // An announced `Content-Length` above the limit is rejected without reading. `read_body` counts the actual
        // bytes.
        if body.size_hint().lower() > self.limits.max_body_bytes as u64 {
            return Err(reject(RejectionReason::BodyTooLarge, b""));
        }
        // Without a well-formed signature header the body is read and discarded. Closing the connection without reading
        // it could reset the connection before the client reads the response.
        let signature = SignatureHeaders::of(&head.headers);
        let connection = head.extensions.get::<Arc<dyn ConnectionHooks>>();
        // The body of a GET is not signed, so it is neither read nor passed on.
        let body = if head.method == Method::GET {
            Bytes::new()
        } else {
            match tokio::time::timeout(
                self.limits.body_timeout,
                read_body(
                    body,
                    self.limits.max_body_bytes,
                    signature.is_ok(),
                    connection,
                ),
            )
            .await
            {
                Ok(Ok(body)) => body,
                // Dropping a request makes the read of its body fail.
                Ok(Err(RejectionReason::BodyBroken))
                    if connection.is_some_and(|connection| connection.is_dropped()) =>
                {
                    return Err(reject(RejectionReason::Overloaded, b""));
                }
                Ok(Err(reason)) => return Err(reject(reason, b"")),
                Err(_) => return Err(reject(RejectionReason::BodyTooSlow, b"")),
            }
        };
        let signature =
            signature.map_err(|kind| reject(RejectionReason::Signature(kind.into()), b""))?;
        let request = UnverifiedRequest {
            method: &head.method,
            target,
            headers: &head.headers,
            body: &body,
        };
        verifier
            .verify_with(&request, &signature)
            .map(Arc::new)
            .map_err(|error| reject(RejectionReason::Signature(error), &body))
    }
}

/// Connection that a request arrived on, for a server that limits unverified requests. Such a server puts an
/// `Arc<dyn ConnectionHooks>` into the extensions of each request; without it the layer works alone.
#[doc(hidden)]
pub trait ConnectionHooks: Send + Sync {
    /// Records that the request is verified; false if the connection was evicted, or the request dropped, before. Such a
    /// request must not reach its handler.
    #[must_use]
    fn record_verified(&self) -> bool;

    /// Subtracts bytes of the body that were read and then discarded, from the bytes that the server counts.
    fn discard(&self, bytes: usize);

    /// Returns whether the server dropped the request to free the memory of its body.
    fn is_dropped(&self) -> bool;
}

/// Reads a whole body. Returns it if `keep_body` is true, and discards it otherwise.
async fn read_body(
    body: Body,
    limit: usize,
    keep_body: bool,
    connection: Option<&Arc<dyn ConnectionHooks>>,
) -> Result<Bytes, RejectionReason> {
    let mut body = pin!(body);
    let mut first_frame = Bytes::new();
    let mut blocks = BodyBlocks::default();
    let mut length = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| RejectionReason::BodyBroken)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > limit {
            return Err(RejectionReason::BodyTooLarge);
        }
        if !keep_body {
            // Discarded bytes use no memory, so they do not count towards the budget for unverified bytes.
            if let Some(connection) = connection {
                connection.discard(data.len());
            }
        } else if length == data.len() {
            // Twilio's bodies arrive in one frame, which is used without a copy.
            first_frame = data;
        } else {
            // Copy: a frame keeps hyper's whole read buffer alive, which may be much larger.
            blocks.append(&std::mem::take(&mut first_frame));
            blocks.append(&data);
        }
    }
    Ok(if blocks.is_empty() {
        first_frame
    } else {
        blocks.concat().into()
    })
}

fn rejection_response(reason: RejectionReason, method: &Method, text: Option<String>) -> Response {
    let body = text.map_or_else(|| Body::from(reason.text()), Body::from);
    let mut response = (reason.status(), body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    match reason {
        RejectionReason::Method => {
            // RFC 9110 requires `Allow` with a 405.
            drop(headers.insert(ALLOW, HeaderValue::from_static("GET, POST, PUT")));
        }
        // The rest of the body will not be read, so the connection cannot carry another request.
        RejectionReason::BodyTooLarge
        | RejectionReason::BodyTooSlow
        | RejectionReason::Overloaded => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    // A cache in between could store the response to a GET.
    if *method == Method::GET {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response.extensions_mut().insert(reason);
    response
}

/// Parameters of a verified request. A value of this type proves the verification: only [`SignatureLayer`] creates it.
///
/// ```
/// use replyhook::signature::{SignedForm, AuthTokenKind};
///
/// /// An axum handler behind a `SignatureLayer`.
/// async fn sms(form: SignedForm) -> String {
///     if form.token() == AuthTokenKind::Secondary {
///         println!("signed with the secondary token");
///     }
///     let text = form.params().get("Body").unwrap_or_default();
///     format!("You wrote {text}.")
/// }
/// # let _: axum::Router = axum::Router::new().route("/sms", axum::routing::post(sms));
/// ```
#[derive(Debug, Clone)]
pub struct SignedForm(Arc<Verified>);

impl SignedForm {
    /// Returns the decoded parameters.
    pub fn params(&self) -> &FormParams {
        &self.0.form
    }

    /// Converts into the decoded parameters.
    pub fn into_params(self) -> FormParams {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.form.clone(), |verified| verified.form)
    }

    /// Returns the kind of token or key that signed the request.
    pub fn token(&self) -> AuthTokenKind {
        self.0.token
    }

    /// Returns whether the parameters come from a form or a query. False for a body of another type, which is signed by
    /// `bodySHA256`; it has no parameters.
    pub fn is_form(&self) -> bool {
        self.0.is_form
    }
}

/// Rejection of the [`SignedForm`] extractor on a route without a [`SignatureLayer`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("SignedForm needs a SignatureLayer around the route")]
pub struct SignedFormRejection;

impl IntoResponse for SignedFormRejection {
    fn into_response(self) -> Response {
        // A programming error: only the log says which one, since the client is not authenticated.
        tracing::error!("{self}");
        (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for SignedForm {
    type Rejection = SignedFormRejection;

    fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> impl Future<Output = Result<Self, SignedFormRejection>> + Send {
        // Removed instead of cloned, so that this is the only owner and `into_params` need not copy the parameters.
        std::future::ready(parts.extensions.remove().ok_or(SignedFormRejection))
    }
}
