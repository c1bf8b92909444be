//! The outermost layer of every endpoint: rejects requests while the server is not running, and adds request IDs,
//! metrics and panic handling.
//!
//! It is one layer, because all of these need the same state of a request, from its head to its response.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::HeaderName;
use http::{HeaderValue, Request};
use tower::{Layer, Service};
use tracing::Instrument;

use super::rejection;
use super::request_id::{RequestId, RequestIds};
use super::response::{self, ErrorResponse};
use crate::lifecycle::{Lifecycle, Stage};
use crate::signature::RejectionReason;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::{Endpoint, Metrics, Outcome};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// State that all endpoints share.
pub(crate) struct EndpointState {
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    ids: RequestIds,
    unavailable_warnings: Throttle,
}

impl EndpointState {
    pub(crate) fn new(metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            metrics,
            lifecycle,
            ids: RequestIds::new(),
            unavailable_warnings: Throttle::new(10),
        }
    }

    /// Returns why the endpoint is unavailable, if it is.
    fn unavailable_reason(&self, endpoint: Endpoint) -> Option<&'static str> {
        let reason = match self.lifecycle.stage() {
            Stage::Running => return None,
            Stage::Idle => {
                return Some(
                    "not started: the worker of App::into_parts is not running; spawn worker.run(shutdown)\n",
                );
            }
            Stage::Opening => return Some("starting: the store is not open yet\n"),
            Stage::Recovering => "recovering: a background task is being restarted\n",
            Stage::Draining => "shutting down\n",
            Stage::Ended => "stopped: the worker of App::into_parts has ended\n",
        };
        // In these three stages the fallback and media endpoints stay available. Twilio calls the fallback URL for
        // messages that were just rejected, and fetches the files of replies that were just sent.
        let stays_available = matches!(endpoint, Endpoint::Fallback | Endpoint::Media);
        (!stays_available).then_some(reason)
    }
}

/// The tower layer of one endpoint.
#[derive(Clone)]
pub(crate) struct EndpointLayer {
    state: Arc<EndpointState>,
    endpoint: Endpoint,
}

impl EndpointLayer {
    pub(crate) fn new(state: Arc<EndpointState>, endpoint: Endpoint) -> Self {
        Self { state, endpoint }
    }
}

impl<S> Layer<S> for EndpointLayer {
    type Service = EndpointService<S>;

    fn layer(&self, inner: S) -> EndpointService<S> {
        EndpointService {
            inner,
            state: self.state.clone(),
            endpoint: self.endpoint,
        }
    }
}

/// The service of [`EndpointLayer`].
#[derive(Clone)]
pub(crate) struct EndpointService<S> {
    inner: S,
    state: Arc<EndpointState>,
    endpoint: Endpoint,
}

impl<S> Service<Request<Body>> for EndpointService<S>
where
    S: Service<Request<Body>, Error = Infallible>,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        crate::crash_point!("P0");
        let guard = RequestGuard::begin(self.state.clone(), self.endpoint);
        // Before the body is read and the signature checked: a request that is rejected anyway should cost little.
        if let Some(reason) = guard.unavailable_reason {
            let response =
                response::respond(Err(ErrorResponse::Unavailable(reason)), request.method());
            return Box::pin(std::future::ready(Ok(guard.finish(response))));
        }
        // `RejectionLog` reads the id from the extensions.
        request.extensions_mut().insert(guard.id);
        let method = request.method().clone();
        let id = guard.id;
        let span =
            tracing::debug_span!("webhook", endpoint = self.endpoint.as_str(), request_id = %id);
        // Unwind safe: after a panic nothing of the inner future is used again.
        let inner = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(
            async move {
                let response = match inner.await {
                    Ok(Ok(response)) => response.into_response(),
                    Err(_) => {
                        tracing::error!(request_id = %id, "the server panicked on a request: this is a bug in replyhook");
                        response::respond(Err(ErrorResponse::Panicked), &method)
                    }
                };
                Ok(guard.finish(response))
            }
            .instrument(span),
        )
    }
}

/// Request ID of one request, and its metrics, which are recorded on drop.
// hyper drops the future of a request whose client has disconnected. A guard that is dropped without `finish` therefore
// counts as `Outcome::Disconnected`.
struct RequestGuard {
    state: Arc<EndpointState>,
    endpoint: Endpoint,
    id: RequestId,
    started: Instant,
    unavailable_reason: Option<&'static str>,
    outcome: Outcome,
}

impl RequestGuard {
    fn begin(state: Arc<EndpointState>, endpoint: Endpoint) -> Self {
        state.metrics.requests_in_flight.inc();
        let unavailable_reason = state.unavailable_reason(endpoint);
        let id = state.ids.next();
        if let Some(reason) = unavailable_reason
            && let Some(suppressed) = state.unavailable_warnings.try_log()
        {
            tracing::error!(
                endpoint = endpoint.as_str(),
                reason = reason.trim_end(),
                suppressed,
                "rejected a webhook request with 503"
            );
        }
        Self {
            state,
            endpoint,
            id,
            started: Instant::now(),
            unavailable_reason,
            outcome: Outcome::Disconnected,
        }
    }

    fn finish(mut self, mut response: Response) -> Response {
        // Endpoints put an `Outcome` into the response, and `SignatureLayer` a `RejectionReason`. A response with
        // neither comes from elsewhere, such as an extractor.
        let endpoint_outcome = response.extensions().get::<Outcome>().copied();
        let rejection_outcome = || {
            response
                .extensions()
                .get::<RejectionReason>()
                .copied()
                .map(rejection::metrics_outcome)
        };
        self.outcome = endpoint_outcome
            .or_else(rejection_outcome)
            .unwrap_or(Outcome::Ok);
        // Never fails: the id is ASCII.
        if let Ok(value) = HeaderValue::from_str(&self.id.to_string()) {
            response.headers_mut().insert(REQUEST_ID.clone(), value);
        }
        response
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.state.metrics.requests_in_flight.dec();
        self.state.metrics.webhook(
            self.endpoint,
            self.outcome,
            self.started.elapsed().as_secs_f64(),
        );
    }
}
