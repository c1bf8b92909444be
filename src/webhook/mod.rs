//! The public endpoints and their routes.
//!
//! Each webhook has two layers: [`endpoint_layer`], which rejects requests while the server is not running and adds
//! request IDs, metrics and panic handling, and inside of it the signature layer. All accept GET, POST and PUT, with
//! and without a trailing slash, and with and without the prefix of `PUBLIC_URL`. Nothing redirects. `/media` has the
//! endpoint layer only, because Twilio does not sign its requests.

mod classify;
mod conversations;
mod endpoint_layer;
mod fallback;
mod file_body;
mod in_flight;
mod media;
mod primary;
mod probe;
mod range;
mod rejection;
mod request_id;
mod response;
mod status;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::any;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use tokio::task::JoinHandle;

pub(crate) use endpoint_layer::{EndpointLayer, EndpointState};
pub(crate) use in_flight::InFlightLimit;
use in_flight::InFlightPermit;
pub(crate) use rejection::RejectionLog;
use response::ErrorResponse;

use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::form::FormParams;
use crate::media::MediaService;
use crate::message::{ConversationEvent, FallbackCause, InboundMessage, ParseError, StatusUpdate};
use crate::probe::Instance;
use crate::signature::{SIGNATURE_HEADER, SignatureLayer, SignedForm};
use crate::store::Store;
use crate::telemetry::metrics::{Endpoint, Metrics};
use crate::telemetry::{StoreReport, Throttle};

pub(crate) type StatusHook = Arc<dyn Fn(StatusUpdate) -> BoxFuture<'static, ()> + Send + Sync>;
pub(crate) type ConversationEventHook =
    Arc<dyn Fn(ConversationEvent) -> BoxFuture<'static, ()> + Send + Sync>;
pub(crate) type FallbackHook =
    Arc<dyn Fn(FallbackCause, InboundMessage) -> BoxFuture<'static, ()> + Send + Sync>;

/// State that the endpoints share.
pub(crate) struct Webhooks {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_report: StoreReport,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) in_flight: InFlightLimit,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_status: Option<StatusHook>,
    pub(crate) on_fallback: Option<FallbackHook>,
    pub(crate) on_conversation_event: Option<ConversationEventHook>,
    pub(crate) warnings: Warnings,
    pub(crate) media: MediaService,
    /// The id of this start of the server, for probes.
    pub(crate) instance: Instance,
}

/// Throttles of the log lines that requests can cause, one per kind, so that one kind cannot suppress another.
pub(crate) struct Warnings {
    malformed: Throttle,
    overloaded: Throttle,
    fallback: Throttle,
    undelivered: Throttle,
    unhandled: Throttle,
    unrouted: Throttle,
    media: Throttle,
}

impl Warnings {
    pub(crate) fn new() -> Self {
        let throttle = || Throttle::new(10);
        Self {
            malformed: throttle(),
            overloaded: throttle(),
            fallback: throttle(),
            undelivered: throttle(),
            unhandled: throttle(),
            unrouted: throttle(),
            media: throttle(),
        }
    }
}

impl Webhooks {
    /// Returns the parameters of a verified request, if it is a form.
    fn params(&self, form: SignedForm) -> Result<FormParams, ErrorResponse> {
        self.metrics.verified_request(form.token());
        // A body of another type can have a valid signature, by `bodySHA256`. Twilio's messaging webhooks are all
        // forms.
        if form.is_form() {
            return Ok(form.into_params());
        }
        if let Some(suppressed) = self.warnings.malformed.try_log() {
            tracing::warn!(
                suppressed,
                "rejected a signed request that is not a form; messaging webhooks are forms"
            );
        }
        Err(ErrorResponse::NotAForm)
    }

    /// Acquires the permit of a verified request.
    fn acquire_permit(&self, endpoint: Endpoint) -> Result<InFlightPermit, ErrorResponse> {
        self.in_flight.try_acquire(endpoint).ok_or_else(|| {
            if let Some(suppressed) = self.warnings.overloaded.try_log() {
                tracing::error!(
                    endpoint = endpoint.as_str(),
                    suppressed,
                    "overloaded; no permit left for a verified request"
                );
            }
            ErrorResponse::Unavailable("overloaded\n")
        })
    }

    /// Returns the parsed value, or logs why the verified parameters cannot be parsed.
    // An error and not a warning: either Twilio has changed its parameters, or an attacker moves parameter boundaries
    // within a text whose signature still fits.
    fn require_parsed<T>(
        &self,
        endpoint: Endpoint,
        result: Result<T, ParseError>,
    ) -> Result<T, ErrorResponse> {
        result.map_err(|error| {
            if let Some(suppressed) = self.warnings.malformed.try_log() {
                tracing::error!(endpoint = endpoint.as_str(), suppressed, %error, "rejected a signed request whose parameters cannot be read");
            }
            ErrorResponse::BadForm
        })
    }

    /// Runs a hook in a task of its own, which the shutdown waits for. A panic of the hook is logged.
    fn spawn_hook(
        &self,
        hook: &'static str,
        call: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.dispatcher.tasks.spawn(async move {
            if AssertUnwindSafe(call).catch_unwind().await.is_err() {
                tracing::error!(hook, "a hook panicked");
            }
        })
    }
}

/// Responds with 404 to unknown paths.
// A warning only for requests with a signature header, which a wrong URL in the Twilio console causes. Other requests
// for unknown paths are mostly scanners, and only counted.
async fn unrouted(State(webhooks): State<Arc<Webhooks>>, headers: HeaderMap) -> impl IntoResponse {
    webhooks.metrics.unrouted.inc();
    if headers.contains_key(SIGNATURE_HEADER)
        && let Some(suppressed) = webhooks.warnings.unrouted.try_log()
    {
        tracing::warn!(
            suppressed,
            "responded with 404 to a signed request for an unknown path; set the URL in the Twilio console to one that \
             `replyhook check` shows"
        );
    }
    (StatusCode::NOT_FOUND, "not found\n")
}

/// Creates the router of the public listener. `prefix` is the path of `PUBLIC_URL`.
pub(crate) fn router(
    webhooks: Arc<Webhooks>,
    state: &Arc<EndpointState>,
    signature: &SignatureLayer,
    prefix: &str,
) -> Router {
    // The first layer is the outermost: it also counts the requests that the signature layer rejects.
    let layers = |endpoint| {
        (
            EndpointLayer::new(state.clone(), endpoint),
            signature.clone(),
        )
    };
    // `any`, and not one route per method: axum's own 405 has no `Outcome`, and would be counted as `ok`. The signature
    // layer, and `media` itself, reject other methods.
    let primary = any(primary::primary).layer(layers(Endpoint::Primary));
    let fallback = any(fallback::fallback).layer(layers(Endpoint::Fallback));
    let status = any(status::status).layer(layers(Endpoint::Status));
    let media = any(media::media).layer(EndpointLayer::new(state.clone(), Endpoint::Media));
    let mut router = Router::new();
    // With and without the prefix, because a proxy may keep or strip it. Without a configured prefix both are "", and
    // axum panics on a route that is added twice.
    let mut prefixes = vec![prefix, ""];
    prefixes.dedup();
    for prefix in prefixes {
        for slash in ["", "/"] {
            router = router
                .route(&format!("{prefix}/webhook{slash}"), primary.clone())
                .route(
                    &format!("{prefix}/webhook/fallback{slash}"),
                    fallback.clone(),
                )
                .route(&format!("{prefix}/webhook/status{slash}"), status.clone())
                .route(&format!("{prefix}/media/{{token}}{slash}"), media.clone());
        }
    }
    router.fallback(unrouted).with_state(webhooks)
}
