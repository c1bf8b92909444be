//! The private endpoints: `/livez`, `/readyz`, `/metrics`. They belong on a listener that the internet does not reach.

mod asking;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

pub use asking::{Heard, Unheard, probe, readiness};

use crate::delivery::RestHealth;
use crate::dispatch::Dispatcher;
use crate::lifecycle::{Lifecycle, Stage};
use crate::probe::{INSTANCE_HEADER, Instance};
use crate::store::{OpenMessages, OutboxState, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// What the endpoints look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rest: Arc<RestHealth>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Which start of the server this is.
    pub(crate) instance: Instance,
}

/// `/readyz`: whether messages can be accepted, and what stands in the way.
///
/// ```
/// use replyhook::admin::Readiness;
///
/// let answer = r#"{"ready": false, "checks": {
///     "store": {"ok": false, "reason": "the store is full: make room on its disk"},
///     "draining": false, "rest": "ok", "outbox": {"oldest_s": null, "pending": 0, "held": 2}
/// }}"#; // as an older version said it: what it did not count is zero
/// let readiness: Readiness = serde_json::from_str(answer)?;
/// assert!(!readiness.ready && !readiness.checks.store.ok);
/// assert_eq!(readiness.checks.outbox.held, 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Readiness {
    /// Whether they can.
    pub ready: bool,
    /// What that hangs on, and what else is worth knowing.
    pub checks: Parts,
}

/// The parts of [`Readiness`].
///
/// Read: see [`Readiness`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parts {
    /// The store.
    pub store: StorePart,
    /// Whether the server is shutting down.
    pub draining: bool,
    /// The worker beside the webhooks: `not started`, `opening`, `running`, `draining` or `ended`.
    #[serde(default)]
    pub worker: String,
    /// What became of the last call of Twilio's REST API: `ok`, `failing`, or `unknown` before the first.
    pub rest: String,
    /// What has no answer yet.
    #[serde(default)]
    pub messages: MessagesPart,
    /// What waits to go out by REST.
    pub outbox: OutboxPart,
}

/// The store in [`Parts`].
///
/// Read: see [`Readiness`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StorePart {
    /// Whether it keeps messages.
    pub ok: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// Fallback calls that were answered from memory, and are not in the journal yet.
    #[serde(default)]
    pub outage_answers: usize,
}

/// The messages in [`Parts`].
///
/// Read: see [`Readiness`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MessagesPart {
    /// Seconds since the oldest of these came.
    pub oldest_s: Option<i64>,
    /// Messages that wait for their turn.
    pub received: u64,
    /// Messages with their handler.
    pub processing: u64,
    /// Messages that will be answered by REST.
    pub deferred: u64,
    /// Dead messages: they get no reply unless an operator retries them.
    #[serde(default)]
    pub dead: u64,
    /// Messages that were never answered, and whose content was deleted by age.
    #[serde(default)]
    pub expired_unanswered: u64,
}

/// The outbox in [`Parts`].
///
/// Read: see [`Readiness`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutboxPart {
    /// Seconds since the first message in it was due.
    pub oldest_s: Option<i64>,
    /// Messages that will be sent, or looked for.
    pub pending: u64,
    /// Messages that wait for the operator.
    pub held: u64,
}

pub(crate) fn router(admin: Admin) -> Router {
    let instance = admin.instance.header();
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(map_response(move |mut response: Response| {
            let name = HeaderName::from_static(INSTANCE_HEADER);
            response.headers_mut().insert(name, instance.clone());
            std::future::ready(response)
        }))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let stage = admin.lifecycle.stage();
    let (failure, kept) = match stage {
        Stage::Idle => (Some("not started".to_owned()), None),
        Stage::Opening => (Some("being opened".to_owned()), None),
        Stage::Running | Stage::Draining | Stage::Ended => look(&admin).await,
    };
    let (messages, outbox) = kept.unwrap_or_default();
    let ready = stage == Stage::Running && failure.is_none();
    let now = admin.dispatcher.clock.now();
    let age = |oldest| now.duration_since(oldest).as_secs().max(0);
    let readiness = Readiness {
        ready,
        checks: Parts {
            store: StorePart {
                ok: failure.is_none(),
                reason: failure,
                outage_answers: admin.dispatcher.outage_answers(),
            },
            draining: stage == Stage::Draining,
            worker: stage.as_str().to_owned(),
            rest: admin.rest.state().as_str().to_owned(),
            messages: MessagesPart {
                oldest_s: messages.oldest.map(age),
                received: messages.received,
                processing: messages.handling,
                deferred: messages.deferred,
                dead: messages.dead,
                expired_unanswered: messages.expired_unanswered,
            },
            outbox: OutboxPart {
                oldest_s: outbox.oldest.map(age),
                pending: outbox.pending + outbox.unknown,
                held: outbox.held,
            },
        },
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

type Kept = (OpenMessages, OutboxState);

/// Checks the store, and returns why it keeps no messages, if so, and the counts of what is not done yet.
async fn look(admin: &Admin) -> (Option<String>, Option<Kept>) {
    let by = tokio::time::Instant::now() + admin.store.patience();
    admin.dispatcher.check_store().await;
    let health = &admin.dispatcher.store_report.health;
    let kept = async {
        let open = admin.store.open_messages().await?;
        Ok::<Kept, StoreError>((open, admin.store.outbox_state().await?))
    };
    let kept = tokio::time::timeout_at(by, kept).await.ok();
    let kept = kept.and_then(|kept| health.read(kept));
    if let Some((messages, outbox)) = &kept {
        let now = admin.dispatcher.clock.now();
        admin.metrics.messages(messages, now);
        admin.metrics.outbox(outbox, now);
    }
    (health.failure(), kept)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
        .into_response()
}
