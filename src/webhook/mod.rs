//! The public endpoints and their routes.
//!
//! Each webhook has two layers: [`endpoint_layer`], which rejects requests while the server is not running and adds
//! request IDs, metrics and panic handling, and inside of it the signature layer. All accept GET, POST and PUT, with
//! and without a trailing slash, and with and without the prefix of `PUBLIC_URL`. Nothing redirects. `/media` has the
//! endpoint layer only, because Twilio does not sign its requests. `server.health_path` has no layer.

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
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use http::header::ALLOW;
use http::{HeaderMap, StatusCode, Uri};

pub(crate) use endpoint_layer::{EndpointLayer, EndpointState};
pub(crate) use in_flight::InFlightLimit;
pub(crate) use rejection::RejectionLog;
pub(crate) use webhooks::{ConversationEventHook, FallbackHook, StatusHook, Warnings, Webhooks};

use crate::signature::{PublicUrl, RoutePath, SIGNATURE_HEADER, SignatureLayer};
use crate::telemetry::metrics::Endpoint;

/// Maximum number of characters of an unknown path in the log.
const MAX_LOGGED_PATH: usize = 200;

/// Responds with 404 to unknown paths.
// A warning only for requests with a signature header, which a wrong URL in the Twilio console causes. Other requests
// for unknown paths are mostly scanners, and only counted.
async fn unrouted(
    State(webhooks): State<Arc<Webhooks>>,
    uri: Uri,
    headers: HeaderMap,
) -> impl IntoResponse {
    webhooks.metrics.unrouted.inc();
    if headers.contains_key(SIGNATURE_HEADER)
        && let Some(suppressed) = webhooks.warnings.unrouted.try_log()
    {
        // Not the query, in which a GET has the message. The text of a stranger is cut.
        let path: String = uri.path().chars().take(MAX_LOGGED_PATH).collect();
        tracing::warn!(
            suppressed,
            path,
            "responded with 404 to a signed request for an unknown path; set the URL in the Twilio console to one that \
             `replyhook check` shows, or server.paths to the path of that URL"
        );
    }
    (StatusCode::NOT_FOUND, "not found\n")
}

/// Creates the router of the public listener.
pub(crate) fn router(
    webhooks: Arc<Webhooks>,
    state: &Arc<EndpointState>,
    signature: &SignatureLayer,
    url: &PublicUrl,
    health_path: Option<&RoutePath>,
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
    let paths = url.paths();
    let mut endpoints = vec![
        (paths.primary(), primary),
        (paths.fallback(), fallback),
        (paths.status(), status),
        ("/media/{token}", media),
    ];
    // Without a layer: it responds as long as the process lives, also while the server drains.
    let health = get(async || "ok").fallback(async || {
        let allow = [(ALLOW, "GET, HEAD")];
        (StatusCode::METHOD_NOT_ALLOWED, allow, "GET or HEAD\n")
    });
    endpoints.extend(health_path.map(|path| (path.as_str(), health)));
    let mut router = Router::new();
    for (path, handlers) in endpoints {
        // The settings exclude paths with a route in common, on which axum would panic.
        for route in url.routes(path) {
            router = router.route(&route, handlers.clone());
        }
    }
    router.fallback(unrouted).with_state(webhooks)
}
