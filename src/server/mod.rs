//! The accept loop: HTTP/1.1 with a limit on everything that a peer can take: time, connections, bytes.
//!
//! `axum::serve` has no limits, so a connection that says nothing would stay for ever. HTTP/2 is not spoken: neither
//! Twilio nor a proxy needs it towards a server, and what is not there cannot be reset or flooded.
//!
//! Peers without a valid signature must not keep others out: their connections are closed with the response, and at the
//! limit of connections they are the first to be closed.

#[cfg(feature = "failpoints")]
mod cut;
mod exchange;
mod memory;
mod stream;
mod table;
mod task;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::memory::default_unverified_bytes;
use self::table::Table;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// Pause after the system could not accept a connection, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    /// From the first byte of a head to its last.
    pub(crate) header_timeout: Duration,
    /// From one request to the next, and to the first.
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) headers: usize,
    pub(crate) head_bytes: usize,
    /// Bytes of all requests that are not verified, beyond the first of each.
    pub(crate) unverified_bytes: usize,
    /// Peers need a signature: a connection without one is closed with the response, and at the limit for another one.
    pub(crate) wants_signatures: bool,
}

impl ConnectionLimits {
    /// Limits of a listener whose peers are trusted and sign nothing.
    pub(crate) fn private(self, connections: usize) -> Self {
        Self {
            connections,
            wants_signatures: false,
            ..self
        }
    }
}

/// State shared by the connections of a listener.
struct Listening {
    router: Router,
    builder: http1::Builder,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    malformed: Throttle,
}

/// Serves until `stop`, then waits for requests in flight; the caller bounds how long.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder
        // It would count the time between two requests as well: the connection's task has timers of its own.
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        // By itself it is no limit of a head: a buffer takes more where it has room for more.
        .max_buf_size(limits.head_bytes);
    let table = Arc::new(Table::new(&limits, metrics.clone()));
    let errors = Throttle::new(3);
    let listening = Arc::new(Listening {
        router,
        builder,
        limits,
        metrics,
        malformed: Throttle::new(10),
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                listening.metrics.accept_errors.increment(1);
                if let Some(suppressed) = errors.pass() {
                    tracing::error!(%error, suppressed, "a connection cannot be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = table.admit() => place,
            () = stop.cancelled() => break,
        };
        tokio::spawn(task::run(stream, place, listening.clone()));
    }
    drop(listener);
    table.shut_down().await;
}
