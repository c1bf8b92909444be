//! The accept loop: an HTTP/1.1 server with limits on time, connections and bytes per peer.
//!
//! `axum::serve` has none of these limits, so a silent connection would stay open forever. HTTP/2 is not supported:
//! neither Twilio nor a reverse proxy needs it, and attacks on HTTP/2 have no target.
//!
//! Clients without a valid signature must not exclude others. Their connections are closed with the response, and at
//! the connection limit they are closed first.

#[cfg(feature = "failpoints")]
mod aborting_stream;
mod chunk_scanner;
mod exchange;
mod head_scanner;
mod limits;
mod listener_state;
mod memory;
mod parser_response;
mod stream;
mod table;
mod task;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::limits::ConnectionLimits;
use self::listener_state::ListenerState;
pub(crate) use self::memory::default_unverified_bytes;
use self::table::ConnectionTable;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

// Delay after a failed accept. When file descriptors run out, the pending connection stays in the backlog, so an
// immediate `accept` fails again and would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `stop`, then waits for requests in flight. The caller limits that wait.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder
        // hyper's timeout includes the idle time between two requests. `task::Deadline` has separate limits for both.
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        // Limits a head that is still incomplete, while `max_header_size` applies to a complete one. The limit alone
        // is not exact: a buffer with spare capacity accepts more.
        .max_buf_size(limits.head_bytes);
    let table = Arc::new(ConnectionTable::new(&limits, metrics.clone()));
    let accept_warnings = Throttle::new(3);
    let state = Arc::new(ListenerState {
        router,
        builder,
        limits,
        metrics,
        malformed_warnings: Throttle::new(10),
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                state.metrics.accept_errors.inc();
                if let Some(suppressed) = accept_warnings.try_log() {
                    tracing::error!(%error, suppressed, "could not accept a connection");
                }
                // Not interrupted by `stop`: the delay is short.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Wait for capacity after accepting, not before: the table evicts a connection only for a new one. Further
        // connections wait in the kernel's backlog. At shutdown the accepted connection is dropped without a response.
        let permit = tokio::select! {
            permit = table.admit() => permit,
            () = stop.cancelled() => break,
        };
        tokio::spawn(task::run(stream, permit, state.clone()));
    }
    // Close the listener before waiting: new connections are refused and a load balancer turns to another server.
    drop(listener);
    table.shut_down().await;
}
