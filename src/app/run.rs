//! [`App::run`]: listeners, signals and graceful shutdown.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::bot::ECHO;
use super::{App, admin};
use crate::config::ServerSettings;
use crate::core_dumps;
use crate::descriptors;
use crate::lifecycle::Stage;
use crate::server::{self, ConnectionLimits};
use crate::start_error::StartError;
use crate::telemetry::logs;

pub(super) async fn run(app: App) -> Result<(), StartError> {
    let mut app = app;
    let flush = logs::install(&app.settings);
    // After `logs::install`: both calls below log warnings.
    if !app.settings.server.core_dumps {
        core_dumps::disable();
    }
    for warning in &app.warnings {
        tracing::warn!("{warning}");
    }
    if app.handler == ECHO {
        tracing::warn!(
            "handler.kind is \"echo\": users get their own words back; set handler.kind to \"rules\" or \"forward\", or give the \
             app a handler"
        );
    }
    // Before binding: a store that cannot be opened is reported before any request is accepted.
    app.worker.open().await?;
    let server = &app.settings.server;
    let public = listen("server.listen", server.listen).await?;
    let private = match app.settings.admin.listen {
        Some(address) => Some((address, listen("admin.listen", address).await?)),
        None => None,
    };
    let limits = connection_limits(server);
    let (stop, drained) = (CancellationToken::new(), CancellationToken::new());
    let answered = CancellationToken::new();
    // Before `announce`: a supervisor may send SIGTERM as soon as it reads that line.
    let mut signals = Signals::new();
    announce(&app, &public);
    let (metrics, lifecycle) = (app.admin.metrics.clone(), app.admin.lifecycle.clone());
    let shutdown_timeout = server.shutdown_timeout;
    // Before the private listener starts: this call sets the lifecycle stage that `/readyz` reports.
    let worker = app.worker.run_with_server(
        stop.clone().cancelled_owned(),
        answered.clone().cancelled_owned(),
    );
    let worker = tokio::spawn(worker);
    let private = private.map(|(_, listener)| {
        // These 16 descriptors are part of `descriptors::RESERVED_DESCRIPTORS`.
        let limits = limits.private(16);
        // Metrics of its own: `replyhook_connections` counts connections of the public listener only.
        let metrics = std::sync::Arc::new(crate::telemetry::metrics::Metrics::new());
        tokio::spawn(server::serve(
            listener,
            admin::router(app.admin.clone()),
            limits,
            metrics,
            drained.clone(),
        ))
    });
    let public = tokio::spawn(server::serve(
        public,
        app.router,
        limits,
        metrics,
        stop.clone(),
    ));

    let first = signals.next().await;
    // Before `stop`: from here on `EndpointState` rejects new messages and status callbacks with 503.
    lifecycle.set(Stage::Draining);
    stop.cancel();
    tracing::info!(
        signal = first.name,
        shutdown_timeout_s = shutdown_timeout.as_secs(),
        "draining"
    );
    let finished = async {
        // The public listener first: a request that it is still reading may start another handler.
        let in_time = tokio::time::timeout(shutdown_timeout, public).await.is_ok();
        answered.cancel();
        // `&`, not `&&`: wait for the worker even if the listener was late.
        in_time & matches!(worker.await, Ok(Ok(true)))
    };
    let clean = tokio::select! {
        clean = finished => clean,
        second = signals.next() => {
            tracing::warn!(signal = second.name, "second signal; exiting without waiting for work in progress");
            // `exit` runs no destructors, so send waiting traces now.
            drop(flush);
            std::process::exit(second.exit_code());
        }
    };
    // The private listener last: it serves health checks and metrics during the drain.
    drained.cancel();
    if let Some(private) = private {
        private.abort();
    }
    if !clean {
        tracing::error!("shutdown timed out; work in progress was aborted");
        drop(flush);
        std::process::exit(first.exit_code());
    }
    tracing::info!("stopped");
    drop(flush);
    Ok(())
}

/// Returns the connection limits of the public listener.
///
/// Raises the process's limit of open files, and logs a warning if that allows too few connections.
pub(super) fn connection_limits(settings: &ServerSettings) -> ConnectionLimits {
    let connections = descriptors::max_connections(settings.max_connections);
    if connections < settings.max_connections {
        let configured = settings.max_connections;
        tracing::warn!(
            connections,
            configured,
            "fewer connections than server.max_connections; raise the limit of open files"
        );
    }
    ConnectionLimits {
        connections,
        header_timeout: settings.header_timeout,
        idle_timeout: settings.idle_timeout,
        write_timeout: settings.write_timeout,
        headers: settings.max_headers,
        head_bytes: settings.max_header_bytes,
        unverified_bytes: settings
            .unverified_bytes
            .unwrap_or_else(server::default_unverified_bytes),
        wants_signatures: true,
    }
}

pub(super) async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| StartError::listen(name, &address.to_string(), &error))
}

fn announce(app: &App, public: &TcpListener) {
    let url = &app.settings.server.public_url;
    let listen = public
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default();
    tracing::info!(
        listen,
        primary = url.endpoint("/webhook"),
        fallback = url.endpoint("/webhook/fallback"),
        status = url.endpoint("/webhook/status"),
        "ready: enter these URLs in Twilio's console"
    );
}

/// Streams of the signals that stop the server.
struct Signals {
    term: Signal,
    int: Signal,
}

#[derive(Clone, Copy)]
struct Received {
    name: &'static str,
    number: i32,
}

impl Received {
    fn exit_code(self) -> i32 {
        // The shell's convention for a process that a signal ended.
        128 + self.number
    }
}

impl Signals {
    fn new() -> Self {
        let install = |kind| signal(kind).expect("a signal handler can be installed");
        Self {
            term: install(SignalKind::terminate()),
            int: install(SignalKind::interrupt()),
        }
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.term.recv() => Received { name: "SIGTERM", number: 15 },
            _ = self.int.recv() => Received { name: "SIGINT", number: 2 },
        }
    }
}
