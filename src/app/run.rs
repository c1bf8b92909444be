//! [`App::run`]: listeners, signals and graceful shutdown.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::bot::ECHO;
use super::builder::App;
use super::reload::ReloadHandle;
use crate::app_error::AppError;
use crate::config::{LOCAL_STORE_ON_FLY, ServerSettings};
use crate::core_dumps;
use crate::descriptors;
use crate::lifecycle::Stage;
use crate::logs::{self, TelemetryGuard};
use crate::server::{self, ConnectionLimits};

impl App {
    /// Serves until SIGTERM or SIGINT, then shuts down gracefully. Installs logging if the process has no subscriber.
    ///
    /// On SIGHUP it reads the settings again, as [`App::reload_handle`] does; an invalid file changes nothing.
    ///
    /// A second signal, or a shutdown longer than `server.shutdown_timeout_s`, aborts work in progress. Dropping a tokio
    /// runtime waits for code that blocks a thread, so a program whose handlers may block ends its runtime with
    /// `Runtime::shutdown_background` after an error, as `replyhook serve` does.
    ///
    /// # Errors
    /// [`AppError`] if the store cannot be opened or an address cannot be listened on, if the disk of the store fails, if
    /// a background task has failed three times within a minute, or if a shutdown aborted work in progress. A `main` that
    /// returns the error ends with exit code 1; [`AppError::exit_code`] distinguishes them.
    pub async fn run(self) -> Result<(), AppError> {
        run(self).await
    }
}

async fn run(app: App) -> Result<(), AppError> {
    let mut app = app;
    // Install the handler first: without it, SIGHUP ends the process.
    let _hangup_task = reload_on_hangup(app.reload_handle());
    // Dropped at the end, which sends waiting traces.
    let _telemetry_guard = install_logs(&app);
    // After `logs::install`: both calls below log warnings.
    if !app.settings.server.core_dumps {
        core_dumps::disable();
    }
    log_warnings(&app);
    // Before binding: a store that cannot be opened is reported before any request is accepted.
    app.worker.open().await?;
    let server = &app.settings.server;
    let public_listener = bind_listener(server.port_setting, server.listen).await?;
    let admin_listener = match app.settings.admin.listen {
        Some(address) => Some((address, bind_listener("admin.listen", address).await?)),
        None => None,
    };
    let limits = connection_limits(server);
    let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let requests_done = CancellationToken::new();
    // Before `announce`: a supervisor may send SIGTERM as soon as it reads that line.
    let mut signals = ShutdownSignals::new();
    announce(&app, &public_listener);
    let (metrics, lifecycle) = (app.admin.metrics.clone(), app.admin.lifecycle.clone());
    let shutdown_timeout = server.shutdown_timeout;
    // Canceled when a background task has failed too often: the worker drains then, as after a signal.
    let task_failed = CancellationToken::new();
    let on_failure = task_failed.clone();
    let private_router = app.admin_router();
    let has_api = app.api.is_some();
    // Before the private listener starts: this call sets the lifecycle stage that `/readyz` reports.
    let worker = app.worker.run_with_server(
        stop.clone().cancelled_owned(),
        requests_done.clone().cancelled_owned(),
        move || on_failure.cancel(),
    );
    let mut worker = tokio::spawn(worker);
    let admin_task = admin_listener.map(|(_, listener)| {
        // These descriptors are part of `descriptors::RESERVED_DESCRIPTORS`. Clients of the API keep connections open.
        let limits = limits.private(if has_api { 64 } else { 16 });
        // Metrics of its own: `replyhook_connections` counts connections of the public listener only.
        let metrics = std::sync::Arc::new(crate::telemetry::metrics::Metrics::new());
        tokio::spawn(server::serve(
            listener,
            private_router,
            limits,
            metrics,
            stop_admin.clone(),
        ))
    });
    let public_task = tokio::spawn(server::serve(
        public_listener,
        app.router,
        limits,
        metrics,
        stop.clone(),
    ));

    let first_signal = tokio::select! {
        signal = signals.next() => Some(signal),
        () = task_failed.cancelled() => None,
        // The disk has failed, so there is nothing to drain.
        ended = &mut worker => return Err(worker_error(ended)),
    };
    // Before `stop`: from here on `EndpointState` rejects new messages and status callbacks with 503.
    lifecycle.set(Stage::Draining);
    stop.cancel();
    tracing::info!(
        signal = first_signal.map_or("none", |signal| signal.name),
        shutdown_timeout_s = shutdown_timeout.as_secs(),
        "draining"
    );
    let finished = async {
        // The public listener first: a request that it is still reading may start another handler.
        let in_time = tokio::time::timeout(shutdown_timeout, public_task)
            .await
            .is_ok();
        requests_done.cancel();
        // Wait for the worker even if the listener was late.
        (in_time, worker.await)
    };
    let (in_time, ended) = tokio::select! {
        finished = finished => finished,
        signal = signals.next_after(first_signal) => {
            tracing::warn!(signal = signal.name, "second signal; exiting without waiting for work in progress");
            return Err(signal.into_error());
        }
    };
    // The private listener last: it serves health checks and metrics during the drain.
    stop_admin.cancel();
    if let Some(admin_task) = admin_task {
        admin_task.abort();
    }
    match (ended, first_signal) {
        (Ok(Ok(true)), _) if in_time => {
            tracing::info!("stopped");
            Ok(())
        }
        (Ok(Ok(_)), Some(signal)) => {
            tracing::error!("shutdown timed out; work in progress was aborted");
            Err(signal.into_error())
        }
        (ended, _) => Err(worker_error(ended)),
    }
}

/// Installs the log, and connects its level with the reload of the settings.
fn install_logs(app: &App) -> TelemetryGuard {
    let guard = logs::install(&app.settings);
    if let Some(filter) = guard.filter() {
        // Empty until now: each app runs once.
        let set_level = Box::new(move |level: &str| filter.set_level(level));
        let _ = app.reload.log_level.set(set_level);
    }
    guard
}

/// Requests a reload at each SIGHUP, until the returned handle is dropped. After that, SIGHUP has no effect.
fn reload_on_hangup(reload: ReloadHandle) -> AbortOnDropHandle<()> {
    let mut hangup = signal(SignalKind::hangup()).expect("a signal handler can be installed");
    AbortOnDropHandle::new(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.request();
        }
    }))
}

/// Converts the end of the worker that no signal caused.
fn worker_error(ended: Result<Result<bool, AppError>, JoinError>) -> AppError {
    match ended {
        Ok(Err(error)) => error,
        // It panicked outside of its tasks, which are supervised.
        Err(_) | Ok(Ok(_)) => AppError::task("worker"),
    }
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
        requires_signatures: true,
    }
}

/// Binds a listener. `name` is the setting or option that a failure names.
pub(super) async fn bind_listener(
    name: &str,
    address: SocketAddr,
) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| AppError::listen(name, &address.to_string(), &error))
}

/// Logs what is probably not intended in the settings.
fn log_warnings(app: &App) {
    for warning in &app.warnings {
        tracing::warn!("{warning}");
    }
    if app.settings.store.is_local_on_fly() {
        tracing::warn!("{LOCAL_STORE_ON_FLY}");
    }
    if app.handler == ECHO {
        tracing::warn!(
            "handler.kind is \"echo\": users get their own words back; set handler.kind to \"rules\" or \"forward\", or give the \
             app a handler"
        );
    }
}

fn announce(app: &App, public: &TcpListener) {
    let url = &app.settings.server.public_url;
    let listen = public
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default();
    tracing::info!(
        listen,
        primary = url.endpoint(url.paths().primary()),
        fallback = url.endpoint(url.paths().fallback()),
        status = url.endpoint(url.paths().status()),
        "ready: enter these URLs in Twilio's console"
    );
}

/// Streams of the signals that stop the server.
struct ShutdownSignals {
    term: Signal,
    int: Signal,
}

#[derive(Clone, Copy)]
struct ReceivedSignal {
    name: &'static str,
    number: u8,
}

impl ReceivedSignal {
    fn into_error(self) -> AppError {
        AppError::interrupted(self.name, self.number)
    }
}

impl ShutdownSignals {
    fn new() -> Self {
        let install = |kind| signal(kind).expect("a signal handler can be installed");
        Self {
            term: install(SignalKind::terminate()),
            int: install(SignalKind::interrupt()),
        }
    }

    /// Waits for the signal that aborts a shutdown: the one after `first`. Without that, a task has failed, and the next
    /// signal asks for the shutdown that is already in progress.
    async fn next_after(&mut self, first: Option<ReceivedSignal>) -> ReceivedSignal {
        if first.is_none() {
            self.next().await;
        }
        self.next().await
    }

    async fn next(&mut self) -> ReceivedSignal {
        tokio::select! {
            _ = self.term.recv() => ReceivedSignal { name: "SIGTERM", number: 15 },
            _ = self.int.recv() => ReceivedSignal { name: "SIGINT", number: 2 },
        }
    }
}
