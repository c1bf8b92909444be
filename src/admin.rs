//! The private endpoints: `/livez`, `/readyz`, `/metrics`. They belong on a listener that the internet does not reach.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::clock::Clock;
use crate::delivery::RestHealth;
use crate::lifecycle::{Lifecycle, Stage};
use crate::store::{OutboxState, Store};
use crate::telemetry::metrics::Metrics;

/// A store that takes longer counts as not able.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// What the endpoints look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rest: Arc<RestHealth>,
}

/// `/readyz`: whether messages can be accepted, and what stands in the way.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    parts: Parts,
}

#[derive(Serialize)]
struct Parts {
    store: StorePart,
    draining: bool,
    rest: &'static str,
    outbox: Outbox,
}

#[derive(Serialize)]
struct StorePart {
    ok: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Outbox {
    oldest_s: Option<i64>,
    pending: u64,
    held: u64,
}

pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let stage = admin.lifecycle.stage();
    let (store, outbox) = match stage {
        Stage::Idle => (Err("not started".to_owned()), OutboxState::default()),
        Stage::Opening => (Err("being opened".to_owned()), OutboxState::default()),
        Stage::Running | Stage::Draining => look(&admin).await,
    };
    admin
        .metrics
        .store_ok
        .set(f64::from(u8::from(store.is_ok())));
    let ready = stage == Stage::Running && store.is_ok();
    let age = |oldest| admin.clock.now().duration_since(oldest).as_secs().max(0);
    let readiness = Readiness {
        ready,
        parts: Parts {
            store: StorePart {
                ok: store.is_ok(),
                reason: store.err(),
            },
            draining: stage == Stage::Draining,
            rest: admin.rest.state().as_str(),
            outbox: Outbox {
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

/// Whether the store takes a write now, and how full the outbox is.
async fn look(admin: &Admin) -> (Result<(), String>, OutboxState) {
    let store = match tokio::time::timeout(STORE_PATIENCE, admin.store.check()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it takes too long".to_owned()),
    };
    let outbox = match &store {
        Ok(()) => tokio::time::timeout(STORE_PATIENCE, admin.store.outbox_state()).await,
        Err(_) => return (store, OutboxState::default()),
    };
    let outbox = outbox.ok().and_then(Result::ok).unwrap_or_default();
    admin.metrics.outbox(&outbox, admin.clock.now());
    (store, outbox)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
        .into_response()
}

/// Asks the `/readyz` of a private listener on this machine, as a container's health check does.
///
/// # Errors
/// What stands in the way: the listener does not answer, or it answers that it is not ready.
pub fn probe(listen: SocketAddr, patience: Duration) -> Result<(), String> {
    let hosts = match listen.ip() {
        // An unspecified address is listened on and cannot be called.
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
        }
        ip => vec![ip],
    };
    let mut last = String::new();
    for host in hosts {
        match ask(SocketAddr::new(host, listen.port()), patience) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(answer) => {
                let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
                return Err(format!("not ready: {}", body.trim()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                last = format!("no answer from {host}:{} in time", listen.port());
            }
            Err(error) => last = format!("no answer from {host}:{}: {error}", listen.port()),
        }
    }
    Err(last)
}

fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
