//! The public endpoints: all routes on one page.
//!
//! Each is [`front`] (count, label, shed, catch panics) around the signature layer around one endpoint. All take GET,
//! POST and PUT, with and without a slash at the end, with and without the prefix of `PUBLIC_URL`; nothing redirects. Files
//! behind links have the same front and no signature.

mod answer;
mod conversations;
mod fallback;
mod file_body;
mod front;
mod media;
mod primary;
mod probe;
mod range;
mod refusal;
mod request_id;
mod room;
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

use answer::Cause;
pub(crate) use front::{Front, FrontLayer};
pub(crate) use refusal::RefusalReport;
use room::Place;
pub(crate) use room::Room;

use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::form::Form;
use crate::media::Media;
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

/// What the endpoints work with.
pub(crate) struct Webhooks {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_report: StoreReport,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) room: Room,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_status: Option<StatusHook>,
    pub(crate) on_fallback: Option<FallbackHook>,
    pub(crate) on_conversation_event: Option<ConversationEventHook>,
    pub(crate) warnings: Warnings,
    /// Files behind links.
    pub(crate) media: Media,
    /// Which start of the server this is.
    pub(crate) instance: Instance,
}

/// Lines that verified requests can cause, each kind for itself: one must not hide another.
pub(crate) struct Warnings {
    malformed: Throttle,
    overloaded: Throttle,
    fallback: Throttle,
    undelivered: Throttle,
    unheard: Throttle,
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
            unheard: throttle(),
            unrouted: throttle(),
            media: throttle(),
        }
    }
}

impl Webhooks {
    /// The pairs of a verified request, if they are a form's.
    fn params(&self, form: SignedForm) -> Result<Form, Cause> {
        self.metrics.token_slot(form.token());
        if form.is_form() {
            return Ok(form.into_params());
        }
        if let Some(suppressed) = self.warnings.malformed.pass() {
            tracing::warn!(
                suppressed,
                "a signed request is no form: no messaging webhook is"
            );
        }
        Err(Cause::NotAForm)
    }

    /// Room for answering a verified request.
    fn place(&self, endpoint: Endpoint) -> Result<Place, Cause> {
        self.room.take(endpoint).ok_or_else(|| {
            if let Some(suppressed) = self.warnings.overloaded.pass() {
                tracing::error!(
                    endpoint = endpoint.as_str(),
                    suppressed,
                    "overloaded: a request was turned away"
                );
            }
            Cause::Unavailable("overloaded\n")
        })
    }

    /// What was read of verified pairs. Signed, and yet no message: the protocol has changed, or someone moves the
    /// boundaries of a signature.
    fn sound<T>(&self, endpoint: Endpoint, read: Result<T, ParseError>) -> Result<T, Cause> {
        read.map_err(|error| {
            if let Some(suppressed) = self.warnings.malformed.pass() {
                tracing::error!(endpoint = endpoint.as_str(), suppressed, %error, "a signed request is no message");
            }
            Cause::BadForm
        })
    }

    /// Runs a hook beside the request; its panics stay its own.
    fn tell(
        &self,
        hook: &'static str,
        told: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.dispatcher.tasks.spawn(async move {
            if AssertUnwindSafe(told).catch_unwind().await.is_err() {
                tracing::error!(hook, "a hook panicked");
            }
        })
    }
}

/// Another path. Whoever signs it means us, and has entered a wrong URL.
async fn unrouted(State(webhooks): State<Arc<Webhooks>>, headers: HeaderMap) -> impl IntoResponse {
    webhooks.metrics.unrouted.increment(1);
    if headers.contains_key(SIGNATURE_HEADER)
        && let Some(suppressed) = webhooks.warnings.unrouted.pass()
    {
        tracing::warn!(
            suppressed,
            "a signed request came to a path that is none of this server's (404): is the URL that Twilio has one of those that \
             `replyhook check` shows?"
        );
    }
    (StatusCode::NOT_FOUND, "not found\n")
}

/// The routes.
pub(crate) fn router(
    webhooks: Arc<Webhooks>,
    front: &Arc<Front>,
    signature: &SignatureLayer,
    prefix: &str,
) -> Router {
    let stack = |endpoint| (FrontLayer::new(front.clone(), endpoint), signature.clone());
    let primary = any(primary::primary).layer(stack(Endpoint::Primary));
    let fallback = any(fallback::fallback).layer(stack(Endpoint::Fallback));
    let status = any(status::status).layer(stack(Endpoint::Status));
    let media = any(media::media).layer(FrontLayer::new(front.clone(), Endpoint::Media));
    let mut router = Router::new();
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
