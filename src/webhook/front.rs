//! What every webhook request passes first: is the server taking messages, which id and label does it have, and a net
//! under panics. One layer that counts and labels, instead of one for each.

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

use super::answer::{self, Cause};
use super::refusal;
use super::request_id::{RequestId, RequestIds};
use crate::lifecycle::{Lifecycle, Stage};
use crate::signature::RefusalCause;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::{Endpoint, Metrics, Outcome};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Shared by all endpoints.
pub(crate) struct Front {
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    ids: RequestIds,
    errors: Throttle,
}

impl Front {
    pub(crate) fn new(metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            metrics,
            lifecycle,
            ids: RequestIds::new(),
            errors: Throttle::new(10),
        }
    }

    /// Why a request is not even looked at.
    fn closed(&self, endpoint: Endpoint) -> Option<&'static str> {
        match self.lifecycle.stage() {
            Stage::Idle => Some(
                "not started: the worker of App::into_parts is not running; spawn worker.run(shutdown)\n",
            ),
            Stage::Opening => Some("starting: the store is not open yet\n"),
            // What was said in the last moment is fetched in the next.
            Stage::Draining if !matches!(endpoint, Endpoint::Fallback | Endpoint::Media) => {
                Some("shutting down\n")
            }
            Stage::Ended if !matches!(endpoint, Endpoint::Fallback | Endpoint::Media) => {
                Some("stopped: the worker of App::into_parts has ended\n")
            }
            Stage::Running | Stage::Draining | Stage::Ended => None,
        }
    }
}

/// Puts [`Front`] before an endpoint.
#[derive(Clone)]
pub(crate) struct FrontLayer {
    front: Arc<Front>,
    endpoint: Endpoint,
}

impl FrontLayer {
    pub(crate) fn new(front: Arc<Front>, endpoint: Endpoint) -> Self {
        Self { front, endpoint }
    }
}

impl<S> Layer<S> for FrontLayer {
    type Service = Fronted<S>;

    fn layer(&self, inner: S) -> Fronted<S> {
        Fronted {
            inner,
            front: self.front.clone(),
            endpoint: self.endpoint,
        }
    }
}

/// The service of [`FrontLayer`].
#[derive(Clone)]
pub(crate) struct Fronted<S> {
    inner: S,
    front: Arc<Front>,
    endpoint: Endpoint,
}

impl<S> Service<Request<Body>> for Fronted<S>
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
        let passage = Passage::begin(self.front.clone(), self.endpoint);
        if let Some(text) = passage.closed {
            let response = answer::respond(Err(Cause::Unavailable(text)), request.method());
            return Box::pin(std::future::ready(Ok(passage.end(response))));
        }
        request.extensions_mut().insert(passage.id);
        let method = request.method().clone();
        let id = passage.id;
        let span =
            tracing::debug_span!("webhook", endpoint = self.endpoint.as_str(), request_id = %id);
        let inner = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(
            async move {
                let response = match inner.await {
                    Ok(Ok(response)) => response.into_response(),
                    Err(_) => {
                        tracing::error!(request_id = %id, "the server panicked on a request: this is a bug in replyhook");
                        answer::respond(Err(Cause::Panicked), &method)
                    }
                };
                Ok(passage.end(response))
            }
            .instrument(span),
        )
    }
}

/// One request from its head to its answer; dropped before that, its peer has gone away.
struct Passage {
    front: Arc<Front>,
    endpoint: Endpoint,
    id: RequestId,
    started: Instant,
    closed: Option<&'static str>,
    outcome: Outcome,
}

impl Passage {
    fn begin(front: Arc<Front>, endpoint: Endpoint) -> Self {
        front.metrics.requests_in_flight.increment(1.0);
        let closed = front.closed(endpoint);
        let id = front.ids.next();
        if let Some(reason) = closed
            && let Some(suppressed) = front.errors.pass()
        {
            tracing::error!(
                endpoint = endpoint.as_str(),
                reason = reason.trim_end(),
                suppressed,
                "a request was turned away"
            );
        }
        Self {
            front,
            endpoint,
            id,
            started: Instant::now(),
            closed,
            outcome: Outcome::Disconnected,
        }
    }

    fn end(mut self, mut response: Response) -> Response {
        let labelled = response.extensions().get::<Outcome>().copied();
        let refused = || {
            response
                .extensions()
                .get::<RefusalCause>()
                .copied()
                .map(refusal::outcome)
        };
        self.outcome = labelled.or_else(refused).unwrap_or(Outcome::Ok);
        if let Ok(value) = HeaderValue::from_str(&self.id.to_string()) {
            response.headers_mut().insert(REQUEST_ID.clone(), value);
        }
        response
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.front.metrics.requests_in_flight.decrement(1.0);
        self.front.metrics.webhook(
            self.endpoint,
            self.outcome,
            self.started.elapsed().as_secs_f64(),
        );
    }
}
