//! The app of a dev server while it runs: its worker and its listeners.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::select_all;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::app_inspector::{AppState, FaultInjector};
use super::builder::App;
#[cfg(feature = "testing")]
use super::confirmations::{ConfirmationTexts, consent_rules};
use super::run;
use crate::app_error::AppError;
#[cfg(feature = "testing")]
use crate::consent::ConsentRules;
use crate::emulator::Emulator;
use crate::outbound::OutboundClient;
use crate::server;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use replyhook_core::Secret;

/// The app while it is running.
pub(super) struct RunningApp {
    pub(super) url: String,
    pub(super) webhook_url: String,
    /// The public listener's socket, for [`DevServer::restart`](super::dev_server::DevServer::restart).
    // It stays open until then. A port that is closed and bound again may belong to another program in between.
    pub(super) socket: std::net::TcpListener,
    pub(super) store: Arc<dyn Store>,
    pub(super) outbound: OutboundClient,
    pub(super) handler: &'static str,
    pub(super) store_url: String,
    pub(super) admin_addr: Option<SocketAddr>,
    pub(super) api_token: Option<Secret>,
    /// Keywords that a bot must not expect as an answer, for the test kit.
    #[cfg(feature = "testing")]
    pub(super) consent: ConsentRules,
    stop: CancellationToken,
    pub(super) worker: JoinHandle<Result<bool, AppError>>,
    pub(super) listeners: Vec<JoinHandle<()>>,
}

impl RunningApp {
    pub(super) async fn start(
        mut app: App,
        app_listener: TcpListener,
        (fault_injector, emulator): (Arc<FaultInjector>, &Emulator),
        store_is_open: bool,
    ) -> Result<Self, AppError> {
        let url = base_url(&app_listener);
        let public_url = &app.settings.server.public_url;
        let webhook_url = public_url.endpoint(public_url.paths().primary());
        let (app_listener, socket) =
            share(app_listener).map_err(|error| AppError::listen("--port", &url, &error))?;
        // After a restart the store is the old app's and still open.
        app.worker.is_open = store_is_open;
        app.worker.open().await?;
        let store = app.admin.store.clone();
        let limits = run::connection_limits(&app.settings.server);
        let stop = CancellationToken::new();
        let mut listeners = Vec::new();
        let mut admin_addr = None;
        if let Some(address) = admin_listen_address(&app) {
            let listener = run::bind_listener("admin.listen", address).await?;
            admin_addr = listener.local_addr().ok();
            let router = app.admin_router();
            let metrics = Arc::new(Metrics::new());
            let limits = limits.private(limits.connections);
            let serve = server::serve(listener, router, limits, metrics, stop.clone());
            listeners.push(tokio::spawn(serve));
        }
        let state = AppState {
            store: store.clone(),
            clock: app.worker.clock.clone(),
            deadline: app.settings.reply.deadline,
            // As in the dispatcher: debouncing uses at most half of the deadline.
            debounce: app
                .settings
                .reply
                .debounce
                .min(app.settings.reply.deadline / 2),
            handler: app.handler,
            store_url: app.worker.store_url.clone(),
            outbox: app.worker.outbox.clone(),
            fault_injector,
        };
        #[cfg(feature = "testing")]
        let consent = consent_rules(&app.settings, &ConfirmationTexts::default())?;
        let (handler, store_url) = (app.handler, app.worker.store_url.clone());
        let api_token = app.settings.admin.token.clone();
        let outbound = app.outbound();
        emulator.attach(Arc::new(state));
        let metrics = app.admin.metrics.clone();
        let worker = tokio::spawn(app.worker.run(stop.clone().cancelled_owned()));
        let serve = server::serve(app_listener, app.router, limits, metrics, stop.clone());
        listeners.push(tokio::spawn(serve));
        Ok(Self {
            url,
            webhook_url,
            socket,
            store,
            outbound,
            handler,
            store_url,
            admin_addr,
            api_token,
            #[cfg(feature = "testing")]
            consent,
            stop,
            worker,
            listeners,
        })
    }

    /// Waits until the worker or a listener ends. Neither ends unless it fails or [`stop`](Self::stop) is called.
    ///
    /// # Errors
    /// [`AppError`] if the worker ended with one, or if either panicked.
    pub(super) async fn wait(&mut self) -> Result<(), AppError> {
        tokio::select! {
            worker = &mut self.worker => match worker {
                Ok(ended) => ended.map(|_| ()),
                Err(error) => Err(task_error("the server's worker", &error)),
            },
            (listener, ..) = select_all(&mut self.listeners) => {
                listener.map_err(|error| task_error("a listener of the server", &error))
            }
        }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        // The worker drains work in progress; abort the listeners only after that, so that responses still go out.
        // `wait` may have polled this handle to completion; polling it again would panic.
        if !self.worker.is_finished() {
            let _ = self.worker.await;
        }
        // Await each abort: `DevServer::restart` serves the same addresses next. `wait` may have polled one to completion.
        for listener in self.listeners {
            listener.abort();
            if !listener.is_finished() {
                let _ = listener.await;
            }
        }
    }
}

/// Returns the listener, and its socket once more.
fn share(listener: TcpListener) -> std::io::Result<(TcpListener, std::net::TcpListener)> {
    let socket = listener.into_std()?;
    Ok((TcpListener::from_std(socket.try_clone()?)?, socket))
}

/// Returns the error of a part whose task was lost.
pub(super) fn task_error(part: &str, error: &JoinError) -> AppError {
    // Not the text of the panic, which may contain a message. The panic hook has printed it.
    let reason = if error.is_panic() {
        "its task panicked"
    } else {
        "its task was aborted"
    };
    AppError::ended(part, &reason)
}

/// Returns the URL of a listener without a path, such as `http://127.0.0.1:8080`.
pub(super) fn base_url(listener: &TcpListener) -> String {
    let address = listener.local_addr();
    address.map_or_else(|_| String::new(), |address| format!("http://{address}"))
}

/// Returns the configured private address, moved to loopback: no part of a dev server is reachable by others.
pub(super) fn admin_listen_address(app: &App) -> Option<SocketAddr> {
    let configured = app.settings.admin.listen?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, configured.port())))
}
