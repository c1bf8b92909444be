//! The private endpoints `/livez`, `/readyz` and `/metrics`, for a listener that is not reachable from the internet.

mod client;
mod readiness;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};

pub use client::{ReadinessError, ReadinessReport, check_readiness, health_check};
pub use readiness::{
    EventsCheck, MessagesCheck, OutboxCheck, Readiness, ReadinessChecks, StoreCheck,
};

use crate::delivery::RestHealth;
use crate::dispatch::Dispatcher;
use crate::events::DeliveryStatus;
use crate::lifecycle::{Lifecycle, Stage};
use crate::probe::{INSTANCE_HEADER, Instance};
use crate::store::{BacklogStats, EventStats, OutboxStats, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// State shared by the private endpoints.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rest: Arc<RestHealth>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Identity of this server process, sent in a header of every response.
    pub(crate) instance: Instance,
    /// State of the delivery of events; `None` unless `handler.events_url` is set.
    pub(crate) events: Option<Arc<DeliveryStatus>>,
}

pub(crate) fn router(admin: Admin) -> Router {
    let instance = admin.instance.header();
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        // The header lets `replyhook doctor` recognize the process behind the port.
        .layer(map_response(move |mut response: Response| {
            let name = HeaderName::from_static(INSTANCE_HEADER);
            response.headers_mut().insert(name, instance.clone());
            std::future::ready(response)
        }))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let stage = admin.lifecycle.stage();
    let (failure, stats) = match stage {
        // The store is not open in these two stages, so it is not checked.
        Stage::Idle => (Some("not started".to_owned()), None),
        Stage::Opening => (Some("being opened".to_owned()), None),
        Stage::Running | Stage::Recovering | Stage::Draining | Stage::Ended => {
            check_store(&admin).await
        }
    };
    // Zero if the store did not return the counts in time.
    let (messages, outbox, events) = stats.unwrap_or_default();
    let ready = stage == Stage::Running && failure.is_none();
    let now = admin.dispatcher.clock.now();
    // Not negative: a message may be due in the future, because of the rate limit or after the clock was set back.
    let age = |oldest| now.duration_since(oldest).as_secs().max(0);
    let readiness = Readiness {
        ready,
        checks: ReadinessChecks {
            store: StoreCheck {
                ok: failure.is_none(),
                reason: failure,
                unflushed_fallback_replies: admin.dispatcher.outage.reply_count(),
            },
            draining: stage == Stage::Draining,
            worker: stage.as_str().to_owned(),
            rest: admin.rest.state().as_str().to_owned(),
            messages: MessagesCheck {
                oldest_s: messages.oldest.map(age),
                received: messages.received,
                processing: messages.processing,
                deferred: messages.deferred,
                dead: messages.dead,
                expired_unanswered: messages.expired_unanswered,
            },
            outbox: OutboxCheck {
                oldest_s: outbox.oldest.map(age),
                pending: outbox.pending + outbox.unknown,
                held: outbox.held,
            },
            events: admin.events.as_ref().map(|status| EventsCheck {
                oldest_s: events.oldest.map(age),
                pending: events.pending,
                stopped: status.is_stopped(),
            }),
        },
    };
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
    (code, [(CONTENT_TYPE, "application/json")], body).into_response()
}

type StoreStats = (BacklogStats, OutboxStats, EventStats);

/// Checks the store, and returns the reason if it is unavailable, and the counts of backlog and outbox.
async fn check_store(admin: &Admin) -> (Option<String>, Option<StoreStats>) {
    // One deadline for the check and the counts, so that a failing store delays the response by one operation timeout
    // only.
    let deadline = tokio::time::Instant::now() + admin.store.operation_timeout();
    admin.dispatcher.monitor.check().await;
    let health = &admin.dispatcher.monitor.report.health;
    let stats = async {
        let backlog = admin.store.backlog_stats().await?;
        let outbox = admin.store.outbox_stats().await?;
        let events = match admin.events {
            Some(_) => admin.store.event_stats().await?,
            None => EventStats::default(),
        };
        Ok::<StoreStats, StoreError>((backlog, outbox, events))
    };
    // A timeout of the counts is not a failure of the store: `health` judges by the check and by messages.
    let stats = tokio::time::timeout_at(deadline, stats).await.ok();
    let stats = stats.and_then(|stats| health.read(stats));
    // The gauges of `/metrics` get the same numbers.
    if let Some((messages, outbox, events)) = &stats {
        let now = admin.dispatcher.clock.now();
        admin.metrics.messages(messages, now);
        admin.metrics.outbox(outbox, now);
        admin.metrics.events(events, now);
    }
    (health.failure(), stats)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
        .into_response()
}
