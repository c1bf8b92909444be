//! [`Webhooks`]: the state and the steps that the endpoints share.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::in_flight::{InFlightLimit, InFlightPermit};
use super::response::ErrorResponse;
use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::form::FormParams;
use crate::media::MediaService;
use crate::message::{ConversationEvent, FallbackCause, InboundMessage, ParseError, StatusUpdate};
use crate::probe::Instance;
use crate::signature::SignedForm;
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
    pub(super) malformed: Throttle,
    pub(super) other_webhook: Throttle,
    pub(super) overloaded: Throttle,
    pub(super) fallback: Throttle,
    pub(super) undelivered: Throttle,
    pub(super) unhandled: Throttle,
    pub(super) unrouted: Throttle,
    pub(super) media: Throttle,
}

impl Warnings {
    pub(crate) fn new() -> Self {
        let throttle = || Throttle::new(10);
        Self {
            malformed: throttle(),
            other_webhook: throttle(),
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
    pub(super) fn params(&self, form: SignedForm) -> Result<FormParams, ErrorResponse> {
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
    pub(super) fn acquire_permit(
        &self,
        endpoint: Endpoint,
    ) -> Result<InFlightPermit, ErrorResponse> {
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
    pub(super) fn require_parsed<T>(
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
    pub(super) fn spawn_hook(
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
