//! The verifier as a tower layer, for replyhook's own router and for anyone's.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, routing::post};
//! use replyhook::Secret;
//! use replyhook::signature::{PublicUrl, SignatureLayer, SignatureVerifier, SignedForm};
//!
//! async fn hook(form: SignedForm) -> String {
//!     format!("{} parameters, every one of them Twilio's", form.params().len())
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
//! The layer reads the request's target as it arrived. A middleware outside of it that rewrites the URI, or reads the
//! body, makes every signature wrong.

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

use super::explain::Explanation;
use super::verifier::{
    self, SignatureError, SignatureErrorKind, SignatureVerifier, TokenSlot, UnverifiedRequest,
    Verified,
};
use crate::connection::ConnectionState;
use crate::form::{Form, FormError};

/// What a request may cost before it is verified.
///
/// ```
/// use replyhook::signature::RequestLimits;
///
/// let mut limits = RequestLimits::default();
/// assert_eq!(limits.body_bytes, 128 * 1024);
/// limits.body_bytes = 64 * 1024;
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Most bytes of a body. A text of 1600 characters of four bytes takes 20 kB once it is encoded.
    pub body_bytes: usize,
    /// Most time for a whole body.
    pub body_time: Duration,
    /// Most bytes of path and query.
    pub target_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_bytes: 128 * 1024,
            body_time: Duration::from_secs(5),
            target_bytes: 4096,
        }
    }
}

/// Why the layer refused a request. Every refusal's response carries it in its extensions.
///
/// ```
/// use replyhook::signature::RefusalCause;
///
/// assert_eq!(RefusalCause::BodyTooLarge.status(), http::StatusCode::PAYLOAD_TOO_LARGE);
/// assert_eq!(RefusalCause::BodyTooLarge.to_string(), "body too large");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalCause {
    /// Neither GET, POST nor PUT.
    #[error("method not allowed")]
    Method,
    /// Path and query are too long.
    #[error("URI too long")]
    TargetTooLong,
    /// The body is too large.
    #[error("body too large")]
    BodyTooLarge,
    /// The body did not come in time.
    #[error("body too slow")]
    BodyTooSlow,
    /// The body broke off.
    #[error("body broke off")]
    BodyBroken,
    /// Dropped while it was read, because all requests that are not verified had too many bytes together.
    #[error("overloaded")]
    Overloaded,
    /// Not signed by a configured token, or not readable as what was signed.
    #[error(transparent)]
    Signature(SignatureError),
}

impl RefusalCause {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
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
                | SignatureErrorKind::Mismatch
                | SignatureErrorKind::BodyHash
                | SignatureErrorKind::UnknownAccount => StatusCode::FORBIDDEN,
            },
        }
    }

    /// The text of the answer: no more than a stranger may know.
    fn text(self) -> &'static str {
        match self {
            Self::Method => "method not allowed\n",
            Self::TargetTooLong => "URI too long\n",
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

/// One refusal, for whoever reports it.
///
/// Reported: see the example of [`SignatureLayer`].
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Why.
    pub cause: RefusalCause,
    /// The request's head. What it says is not verified.
    pub head: &'a Parts,
    verifier: &'a SignatureVerifier,
    target: &'a str,
    body: &'a [u8],
}

impl Refusal<'_> {
    /// Why the signature does not fit; `None` if it was not looked at. Costs up to some thousand HMACs: call it
    /// rate-limited.
    pub fn explain(&self) -> Option<Explanation> {
        let RefusalCause::Signature(_) = self.cause else {
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

type OnRefusal = dyn Fn(&Refusal<'_>) -> Option<String> + Send + Sync;

/// Lets signed requests through, with their [`SignedForm`] in the extensions, and refuses all others.
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
/// let layer = SignatureLayer::new(Arc::new(verifier)).on_refusal(|refusal| {
///     println!("{}: {}", refusal.head.uri.path(), refusal.cause);
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
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    verifier: Arc<SignatureVerifier>,
    limits: RequestLimits,
    on_refusal: Option<Arc<OnRefusal>>,
}

impl SignatureLayer {
    /// A layer with the default limits that reports nothing.
    pub fn new(verifier: Arc<SignatureVerifier>) -> Self {
        Self {
            shared: Arc::new(Shared {
                verifier,
                limits: RequestLimits::default(),
                on_refusal: None,
            }),
        }
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: RequestLimits) -> Self {
        Arc::make_mut(&mut self.shared).limits = limits;
        self
    }

    /// Reports every refusal. A text that it returns becomes the answer's body: return one only where no stranger can
    /// read it.
    #[must_use]
    pub fn on_refusal(
        mut self,
        report: impl Fn(&Refusal<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.shared).on_refusal = Some(Arc::new(report));
        self
    }
}

impl fmt::Debug for SignatureLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureLayer")
            .field("verifier", &self.shared.verifier)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for SignatureLayer {
    type Service = VerifySignature<S>;

    fn layer(&self, inner: S) -> VerifySignature<S> {
        VerifySignature {
            inner,
            shared: self.shared.clone(),
        }
    }
}

/// The service of [`SignatureLayer`].
///
/// Made by the layer: see [`SignatureLayer`].
#[derive(Clone)]
pub struct VerifySignature<S> {
    inner: S,
    shared: Arc<Shared>,
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
        let shared = self.shared.clone();
        // The service that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match shared.admit(&head, body).await {
                Ok(verified) => {
                    // At the limit of connections a verified one is not closed while it has a request under way.
                    if let Some(connection) = head.extensions.get::<Arc<ConnectionState>>()
                        && !connection.verified()
                    {
                        return Ok(refused(RefusalCause::Overloaded, &head.method, None));
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

impl Shared {
    async fn admit(&self, head: &Parts, body: Body) -> Result<Arc<Verified>, Response> {
        let uri = head
            .extensions
            .get::<OriginalUri>()
            .map_or(&head.uri, |original| &original.0);
        let target = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let refuse = |cause, body: &[u8]| {
            let refusal = Refusal {
                cause,
                head,
                verifier: &self.verifier,
                target,
                body,
            };
            let text = self.on_refusal.as_ref().and_then(|report| report(&refusal));
            refused(cause, &head.method, text)
        };
        if !matches!(head.method, Method::GET | Method::POST | Method::PUT) {
            return Err(refuse(RefusalCause::Method, b""));
        }
        if target.len() > self.limits.target_bytes {
            return Err(refuse(RefusalCause::TargetTooLong, b""));
        }
        if body.size_hint().lower() > self.limits.body_bytes as u64 {
            return Err(refuse(RefusalCause::BodyTooLarge, b""));
        }
        // A body that nothing signs is read, so that its sender hears the answer, and not kept.
        let signature = verifier::signature_of(&head.headers);
        let connection = head.extensions.get::<Arc<ConnectionState>>();
        let body = if head.method == Method::GET {
            Bytes::new()
        } else {
            match tokio::time::timeout(
                self.limits.body_time,
                read(body, self.limits.body_bytes, signature.is_ok(), connection),
            )
            .await
            {
                Ok(Ok(body)) => body,
                Ok(Err(RefusalCause::BodyBroken))
                    if connection.is_some_and(|connection| connection.is_dropped()) =>
                {
                    return Err(refuse(RefusalCause::Overloaded, b""));
                }
                Ok(Err(cause)) => return Err(refuse(cause, b"")),
                Err(_) => return Err(refuse(RefusalCause::BodyTooSlow, b"")),
            }
        };
        if let Err(kind) = signature {
            return Err(refuse(RefusalCause::Signature(kind.into()), b""));
        }
        let request = UnverifiedRequest {
            method: &head.method,
            target,
            headers: &head.headers,
            body: &body,
        };
        self.verifier
            .verify(&request)
            .map(Arc::new)
            .map_err(|error| refuse(RefusalCause::Signature(error), &body))
    }
}

/// Reads a whole body, to keep it or not; one that comes in one piece, as Twilio's do, is not copied.
async fn read(
    body: Body,
    limit: usize,
    keep: bool,
    connection: Option<&Arc<ConnectionState>>,
) -> Result<Bytes, RefusalCause> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut pieces = Pieces::default();
    let mut length = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| RefusalCause::BodyBroken)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > limit {
            return Err(RefusalCause::BodyTooLarge);
        }
        if !keep {
            if let Some(connection) = connection {
                connection.discard(data.len());
            }
        } else if length == data.len() {
            first = data;
        } else {
            // A frame is part of a buffer that may be much larger: none is kept.
            pieces.append(&std::mem::take(&mut first));
            pieces.append(&data);
        }
    }
    Ok(if pieces.0.is_empty() {
        first
    } else {
        pieces.0.concat().into()
    })
}

/// A body as it arrives, in blocks of one size: what one body gives back fits the next, and nothing is taken for bytes
/// that are only announced.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    /// As large as hyper's own buffers.
    const BLOCK_BYTES: usize = 8192;

    fn append(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let mut block = match self.0.pop() {
                Some(block) if block.len() < Self::BLOCK_BYTES => block,
                full => {
                    self.0.extend(full);
                    Vec::with_capacity(Self::BLOCK_BYTES)
                }
            };
            let (fitting, rest) = data.split_at(data.len().min(Self::BLOCK_BYTES - block.len()));
            block.extend_from_slice(fitting);
            self.0.push(block);
            data = rest;
        }
    }
}

fn refused(cause: RefusalCause, method: &Method, text: Option<String>) -> Response {
    let body = text.map_or_else(|| Body::from(cause.text()), Body::from);
    let mut response = (cause.status(), body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    match cause {
        RefusalCause::Method => {
            drop(headers.insert(ALLOW, HeaderValue::from_static("GET, POST, PUT")));
        }
        // What is left of the body is not worth reading.
        RefusalCause::BodyTooLarge | RefusalCause::BodyTooSlow | RefusalCause::Overloaded => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    if *method == Method::GET {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response.extensions_mut().insert(cause);
    response
}

/// The pairs of a verified request, and the proof that it was: only [`SignatureLayer`] makes one.
///
/// ```
/// use replyhook::signature::{SignedForm, TokenSlot};
///
/// /// An axum handler behind a `SignatureLayer`.
/// async fn sms(form: SignedForm) -> String {
///     if form.token() == TokenSlot::Secondary {
///         println!("still the old token");
///     }
///     let text = form.params().get("Body").unwrap_or_default();
///     format!("You wrote {text}.")
/// }
/// # let _: axum::Router = axum::Router::new().route("/sms", axum::routing::post(sms));
/// ```
#[derive(Debug, Clone)]
pub struct SignedForm(Arc<Verified>);

impl SignedForm {
    /// The decoded pairs.
    pub fn params(&self) -> &Form {
        &self.0.form
    }

    /// The decoded pairs, to keep.
    pub fn into_params(self) -> Form {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.form.clone(), |verified| verified.form)
    }

    /// Which configured token it was.
    pub fn token(&self) -> TokenSlot {
        self.0.token
    }

    /// Whether it was a form or a query, and not a body of another type vouched for by `bodySHA256`.
    pub fn is_form(&self) -> bool {
        self.0.is_form
    }
}

/// The route is not behind a [`SignatureLayer`].
///
/// Behind the layer it does not come: see [`SignatureLayer`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("SignedForm needs a SignatureLayer around the route")]
pub struct SignedFormRejection;

impl IntoResponse for SignedFormRejection {
    fn into_response(self) -> Response {
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
        // Taken out: it is the only owner then, and its pairs move into the message without a copy.
        std::future::ready(parts.extensions.remove().ok_or(SignedFormRejection))
    }
}
