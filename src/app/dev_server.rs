//! Local development: an emulated Twilio, and an app that is configured to use it instead of Twilio.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::app_inspector::{FaultInjector, HandlerReport};
use super::builder::{App, AppBuilder};
use super::dev_server_options::DevServerOptions;
use super::reload::ReloadHook;
use super::run;
use super::running_app::{RunningApp, admin_listen_address, base_url, task_error};
use super::tunnel::Tunnel;

#[cfg(feature = "testing")]
use crate::address::Address;
use crate::app_error::AppError;
use crate::clock::{Advance, ShiftedClock};
use crate::config::{self, SigningSettings, Sources};
#[cfg(feature = "testing")]
use crate::consent::AnswerKeyword;
use crate::emulator::{Emulator, EmulatorOptions};
use crate::logs;
use crate::outbound::OutboundClient;
use crate::sid::AccountSid;
#[cfg(feature = "testing")]
use crate::sid::MessageSid;
use crate::signature::{PublicUrl, WebhookPaths};
use crate::store::{Store, StoreHandle};
use replyhook_core::Secret;

/// Default port of the emulator.
const EMULATOR_PORT: u16 = 8081;
/// Default port of the app.
const SERVER_PORT: u16 = 8080;
/// Number of consecutive ports to try, beginning with the default one.
const MAX_PORT_ATTEMPTS: u16 = 100;
/// Settings that a dev server overrides. The values from the file and the environment are for production.
const IGNORED_SETTINGS: [&str; 4] = ["twilio.", "server.public_url", "server.listen", "store.url"];

/// A running emulator, and the app that it calls unless [`DevServerOptions::webhook`] is set.
///
/// ```no_run
/// use replyhook::config::Sources;
/// use replyhook::{App, DevServer, DevServerOptions, Echo};
///
/// # async fn run() -> Result<(), replyhook::AppError> {
/// let bot = App::builder().handler(Echo);
/// let mut dev_server = DevServer::start(bot, Sources::from_env(), DevServerOptions::default()).await?;
/// println!("Chat with your bot: {}", dev_server.emulator().url());
/// dev_server.wait().await?;
/// # Ok(()) }
/// ```
pub struct DevServer {
    emulator: Emulator,
    app: Option<RunningApp>,
    app_factory: AppFactory,
    stop: CancellationToken,
    emulator_task: JoinHandle<std::io::Result<()>>,
    ignored_env_vars: Vec<String>,
}

/// Inputs for building the app, kept for [`DevServer::restart`].
struct AppFactory {
    sources: Sources,
    clock: Arc<dyn Advance>,
    tunnel: Option<Tunnel>,
    fault_injector: Arc<FaultInjector>,
    account: AccountSid,
    /// Announces reloaded rules on the emulator's page.
    on_reload: ReloadHook,
    /// Marks messages on the emulator's page whose handler failed.
    report_handler: HandlerReport,
}

impl AppFactory {
    fn build(&self, builder: AppBuilder, store: Option<Arc<dyn Store>>) -> Result<App, AppError> {
        let mut builder = builder
            .sources(self.sources.clone())
            .clock(self.clock.clone());
        builder.store = store.map(StoreHandle).or(builder.store);
        builder.tunnel.clone_from(&self.tunnel);
        // A store of `DATABASE_URL` may hold outbound messages of real accounts: send none of them to the emulator.
        builder.restrict_to = Some(self.account);
        builder.on_reload = Some(self.on_reload.clone());
        let clock = self.clock.clone();
        self.fault_injector
            .wrap(builder, clock, self.report_handler.clone())
            .build()
    }
}

impl DevServer {
    /// Starts the emulator and the app on loopback.
    ///
    /// `builder` builds the app with the settings of `sources`. Of those, `twilio.*`, `server.public_url`,
    /// `server.listen` and `store.url` are ignored: a dev server has its own values. `DATABASE_URL` still applies.
    ///
    /// # Errors
    /// [`AppError`] for invalid settings, an explicit port that is in use, or a store that cannot be opened.
    pub async fn start(
        builder: AppBuilder,
        sources: Sources,
        options: DevServerOptions,
    ) -> Result<Self, AppError> {
        let clock = options
            .clock
            .clone()
            .unwrap_or_else(|| Arc::new(ShiftedClock::default()));
        let emulator_listener = bind_loopback(
            "--emulator-port, or DevServerOptions::emulator_port,",
            options.emulator_port,
            EMULATOR_PORT,
        )
        .await?;
        let app_listener = match options.webhook {
            Some(_) => None,
            None => Some(
                bind_loopback(
                    "--port, or DevServerOptions::port,",
                    options.port,
                    SERVER_PORT,
                )
                .await?,
            ),
        };
        // Both listeners are bound by now: the emulator and the app need each other's URL.
        let configured_paths = config::load_webhook_paths(&sources);
        let paths = configured_paths.clone().unwrap_or_default();
        let mut emulator_options = emulator_options(&options, app_listener.as_ref(), &paths);
        emulator_options.handles_opt_outs = !config::has_own_sms_keywords(&sources);
        let emulator = Emulator::new(emulator_options, clock.clone(), &emulator_listener)
            .map_err(|error| AppError::config(&error))?;
        let tunnel = match &options.tunnel_url {
            Some(url) => Some(load_tunnel(url, &sources, paths)?),
            None => None,
        };
        let (mut sources, mut ignored) = dev_settings(sources, &emulator, app_listener.as_ref());
        // The emulator calls these URLs until the end, so a changed file must not give a restarted app others.
        if let Some(paths) = configured_paths {
            let keys = [
                "server.paths.primary",
                "server.paths.fallback",
                "server.paths.status",
            ];
            let paths = paths.named().map(|(_, path)| path.to_owned());
            sources.fixed.extend(keys.into_iter().zip(paths));
        }
        if !options.admin_listener {
            sources.fixed.insert("admin.listen", String::new());
        }
        if tunnel.is_some() {
            // The tunnel is public: do not report to unauthenticated clients why their signature does not match.
            let enforced = "enforce".to_owned();
            sources.fixed.insert("signature.mode", enforced);
            // `load_tunnel` has read these variables.
            ignored.retain(|name| !TUNNEL_ENV_VARS.contains(&name.as_str()));
        }
        let app_factory = AppFactory {
            sources,
            clock,
            tunnel,
            fault_injector: Arc::default(),
            account: emulator.account_sid(),
            on_reload: reload_hook(&emulator),
            report_handler: handler_report(&emulator),
        };
        let app = match app_listener {
            Some(app_listener) => {
                let app = app_factory.build(builder, None)?;
                if options.logs {
                    // Without the panic hook, which hides the text of a panic: here the messages are the developer's own,
                    // and a test needs the text.
                    logs::install_subscriber(app.settings());
                }
                let state = (app_factory.fault_injector.clone(), &emulator);
                Some(RunningApp::start(app, app_listener, state, false).await?)
            }
            None => None,
        };
        let stop = CancellationToken::new();
        let (server, stopped) = (emulator.clone(), stop.clone().cancelled_owned());
        let emulator_task =
            tokio::spawn(async move { server.serve(emulator_listener, stopped).await });
        Ok(Self {
            emulator,
            app,
            app_factory,
            stop,
            emulator_task,
            ignored_env_vars: ignored,
        })
    }

    /// Returns the emulator.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Returns the app's base URL, if the app runs.
    pub fn server_url(&self) -> Option<&str> {
        self.app.as_ref().map(|app| app.url.as_str())
    }

    /// Returns the primary, fallback and status callback URL to configure at Twilio, if there is a tunnel.
    pub fn tunnel_webhook_urls(&self) -> Option<[String; 3]> {
        let url = &self.app_factory.tunnel.as_ref()?.public_url;
        Some(url.paths().named().map(|(_, path)| url.endpoint(path)))
    }

    /// Returns the URL of the app's primary webhook, if the app runs.
    pub fn webhook_url(&self) -> Option<&str> {
        self.app.as_ref().map(|app| app.webhook_url.as_str())
    }

    /// Returns the name of the app's handler: the kind of a built-in one, or `your handler`.
    pub fn handler_name(&self) -> Option<&'static str> {
        self.app.as_ref().map(|app| app.handler)
    }

    /// Returns the URL of the app's store, without a password, if the app runs.
    pub fn store_url(&self) -> Option<&str> {
        self.app.as_ref().map(|app| app.store_url.as_str())
    }

    /// Returns the app's client for outbound messages, if the app runs. See [`App::outbound`] for its limits.
    pub fn outbound(&self) -> Option<OutboundClient> {
        self.app.as_ref().map(|app| app.outbound.clone())
    }

    /// Returns the address of the private listener, if it is open.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.app.as_ref().and_then(|app| app.admin_addr)
    }

    /// Returns the token of the HTTP API on the private listener, if it is open and has one.
    pub fn api_token(&self) -> Option<&Secret> {
        let app = self.app.as_ref()?;
        app.admin_addr.and(app.api_token.as_ref())
    }

    /// Returns the clock of the emulator and the app.
    pub fn clock(&self) -> &Arc<dyn Advance> {
        &self.app_factory.clock
    }

    /// Returns the number of handler calls since the start, across restarts of the app.
    pub fn handler_calls(&self) -> u64 {
        *self.app_factory.fault_injector.calls.borrow()
    }

    /// Returns the number of handler calls for messages of this user.
    #[cfg(feature = "testing")]
    pub(crate) fn handler_calls_from(&self, user: &Address) -> u64 {
        let injector = &self.app_factory.fault_injector;
        injector.count_calls(|author, _| author == user)
    }

    /// Returns the number of handler calls for any of these messages.
    #[cfg(feature = "testing")]
    pub(crate) fn handler_calls_for(&self, sids: &[MessageSid]) -> u64 {
        let injector = &self.app_factory.fault_injector;
        injector.count_calls(|_, handled| handled.iter().any(|sid| sids.contains(sid)))
    }

    /// Returns a sentence for each consent keyword that the replies to these messages offered as an answer.
    #[cfg(feature = "testing")]
    pub(crate) fn keyword_findings(&self, sids: &[MessageSid]) -> Vec<String> {
        let offered = self.app_factory.fault_injector.words_offered_for(sids);
        let Some(app) = &self.app else {
            return Vec::new();
        };
        let findings = offered.into_iter().filter_map(|(sender, word)| {
            let channel = sender.channel().as_str();
            match app.consent.answer_keyword(&sender, &word)? {
                AnswerKeyword::Twilios(keyword) => Some(format!(
                    "the bot offers the answer {word:?} on {channel}, where Twilio handles {keyword} itself: a user who \
                     writes it unsubscribes, subscribes or gets help, and the bot gets no answer; use another word"
                )),
                AnswerKeyword::Own => Some(format!(
                    "the bot offers the answer {word:?} on {channel}, where it is one of the opt-out and opt-in words of \
                     the settings: a user who writes it unsubscribes or subscribes; use another word"
                )),
            }
        });
        findings.collect()
    }

    /// Completes once the handler was called more than `previous_calls` times.
    pub async fn wait_for_handler_call(&self, previous_calls: u64) {
        let mut calls = self.app_factory.fault_injector.calls.subscribe();
        // Cannot fail: `self` keeps the sender alive while this waits.
        let _ = calls.wait_for(|count| *count > previous_calls).await;
    }

    /// Restarts the app with `builder` and the settings file as it is now, on the same store and address.
    ///
    /// Builds the new app first, so an error leaves the old one running. Then stops the old app gracefully and starts
    /// the new one. If the start fails, no app runs.
    ///
    /// # Errors
    /// [`AppError`] as in [`DevServer::start`], or if [`DevServerOptions::webhook`] is set.
    pub async fn restart(&mut self, builder: AppBuilder) -> Result<(), AppError> {
        let Some(running) = &self.app else {
            let error =
                "cannot restart the server: --webhook names another one, so none was started";
            return Err(AppError::config(&error));
        };
        let app = self
            .app_factory
            .build(builder, Some(running.store.clone()))?;
        // Try a new private address before stopping the old app, so that an error leaves it running.
        // An unchanged address is not tried: the old app still listens on it.
        if let Some(new_address) = admin_listen_address(&app)
            && running.admin_addr != Some(new_address)
        {
            drop(run::bind_listener("admin.listen", new_address).await?);
        }
        // Connections that come before the new app runs wait in the queue of the socket.
        let socket = running.socket.try_clone();
        let app_listener = socket
            .and_then(TcpListener::from_std)
            .map_err(|error| AppError::listen("--port", &running.url, &error))?;
        if let Some(running) = self.app.take() {
            running.stop().await;
        }
        let state = (self.app_factory.fault_injector.clone(), &self.emulator);
        self.app = Some(RunningApp::start(app, app_listener, state, true).await?);
        Ok(())
    }

    /// Returns the names of environment variables that are set but ignored by a dev server.
    pub fn ignored_env_vars(&self) -> &[String] {
        &self.ignored_env_vars
    }

    /// Waits until the emulator, the app's worker or a listener ends. Each ends only if it fails or is stopped.
    ///
    /// # Errors
    /// [`AppError`] if the worker ended with one, the emulator's listener failed, or a task panicked.
    pub async fn wait(&mut self) -> Result<(), AppError> {
        let Self {
            app, emulator_task, ..
        } = self;
        let app = async move {
            match app {
                Some(app) => app.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = app => ended,
            ended = emulator_task => match ended {
                Ok(served) => served.map_err(|error| AppError::ended("the emulator", &error)),
                Err(error) => Err(task_error("the emulator", &error)),
            },
        }
    }

    /// Stops the app and the emulator. Work in progress gets `server.shutdown_timeout_s` to finish.
    pub async fn stop(self) {
        // The app first: while it drains, it still sends replies via the emulator's REST API.
        if let Some(app) = self.app {
            app.stop().await;
        }
        self.stop.cancel();
        // `wait` may have polled this handle to completion; polling it again would panic.
        if !self.emulator_task.is_finished() {
            let _ = self.emulator_task.await;
        }
    }
}

impl fmt::Debug for DevServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevServer")
            .field("emulator", &self.emulator)
            .field("server", &self.server_url())
            .finish_non_exhaustive()
    }
}

fn reload_hook(emulator: &Emulator) -> ReloadHook {
    let emulator = emulator.clone();
    Arc::new(move |outcome| emulator.announce_reload(outcome))
}

fn handler_report(emulator: &Emulator) -> HandlerReport {
    let emulator = emulator.clone();
    Arc::new(move |sid, failure| emulator.report_handler(sid.as_str(), failure))
}

/// Binds a listener on loopback. Only a default port that is in use is replaced by the next free one.
async fn bind_loopback(
    name: &str,
    port: Option<u16>,
    default: u16,
) -> Result<TcpListener, AppError> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = port {
        return run::bind_listener(name, loopback(port)).await;
    }
    // Always replaced: the loop runs at least once.
    let mut result = Err(AppError::config(&"no free port"));
    for port in default..default + MAX_PORT_ATTEMPTS {
        result = run::bind_listener(name, loopback(port)).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

fn emulator_options(
    options: &DevServerOptions,
    app_listener: Option<&TcpListener>,
    paths: &WebhookPaths,
) -> EmulatorOptions {
    // `None` without an app: then only the URLs of `options` are called.
    let app_url =
        |path| app_listener.map(|app_listener| format!("{}{path}", base_url(app_listener)));
    let webhook = options.webhook.clone().or_else(|| app_url(paths.primary()));
    let mut emulator_options = EmulatorOptions::new(webhook.unwrap_or_default());
    emulator_options.fallback = options
        .fallback
        .clone()
        .or_else(|| app_url(paths.fallback()));
    emulator_options.status_callback = options
        .status_callback
        .clone()
        .or_else(|| app_url(paths.status()));
    emulator_options.record_dir.clone_from(&options.record_dir);
    emulator_options.media_dir.clone_from(&options.media_dir);
    emulator_options.account.clone_from(&options.account);
    emulator_options.protect = options.protect;
    emulator_options
}

/// Environment variables that [`load_tunnel`] reads through [`SigningSettings::load`].
const TUNNEL_ENV_VARS: [&str; 9] = [
    "REPLYHOOK__TWILIO__API_KEY_SID",
    "REPLYHOOK__TWILIO__API_KEY_SECRET",
    "REPLYHOOK__TWILIO__API_KEY_SECRET_FILE",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_AUTH_TOKEN_FILE",
    "TWILIO_AUTH_TOKEN_SECONDARY",
    "TWILIO_AUTH_TOKEN_SECONDARY_FILE",
    "PUBLIC_URL",
];

fn load_tunnel(url: &str, sources: &Sources, paths: WebhookPaths) -> Result<Tunnel, AppError> {
    let (public_url, _) = PublicUrl::parse_with_paths(url, paths)
        .map_err(|error| AppError::config(&format!("--tunnel-url: {error}")))?;
    let signing = SigningSettings::load(sources).map_err(|error| AppError::config(&error))?;
    let missing = || {
        let reason = "--tunnel-url needs a real account; set TWILIO_ACCOUNT_SID, and TWILIO_AUTH_TOKEN or an API key";
        AppError::config(&reason)
    };
    let account = signing.twilio.account_sid.ok_or_else(missing)?;
    let keyring = signing.twilio.keyring();
    let keys = keyring.keys(account).ok_or_else(missing)?.clone();
    Ok(Tunnel {
        public_url,
        account,
        keys,
    })
}

/// Returns settings under which the app uses the emulator as Twilio, and the environment variables that they ignore.
fn dev_settings(
    mut sources: Sources,
    emulator: &Emulator,
    app_listener: Option<&TcpListener>,
) -> (Sources, Vec<String>) {
    sources.ignored.extend(IGNORED_SETTINGS);
    // A store that the caller asks for explicitly applies. Otherwise it stays in memory, whatever the file configures.
    let has_store = ["DATABASE_URL", "DATABASE_URL_FILE"]
        .iter()
        .any(|name| sources.env.get(*name).is_some_and(|url| !url.is_empty()));
    if has_store {
        sources.ignored.retain(|key| *key != "store.url");
    }
    let ignored = sources.ignored_env();
    let ignored = ignored.into_iter().map(str::to_owned).collect();
    let url = app_listener.map(base_url).unwrap_or_default();
    let address = url.trim_start_matches("http://").to_owned();
    let api = emulator.url().to_owned();
    let fixed = [
        (
            "twilio.auth_token",
            emulator.auth_token().expose().to_owned(),
        ),
        ("twilio.account_sid", emulator.account_sid().to_string()),
        ("twilio.api_url", api.clone()),
        ("twilio.messaging_url", api.clone()),
        ("twilio.content_url", api),
        ("server.public_url", url),
        ("server.listen", address),
    ];
    sources.fixed.extend(fixed);
    if !has_store {
        let memory = "sqlite::memory:".to_owned();
        sources.fixed.insert("store.url", memory);
    }
    // Below the file and the environment, which may still set it: a dev server has no private listener by default.
    sources.defaults.insert("admin.listen", String::new());
    (sources, ignored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app_error::AppErrorKind;

    async fn start_dev_server() -> DevServer {
        let options = DevServerOptions {
            emulator_port: Some(0),
            port: Some(0),
            ..DevServerOptions::default()
        };
        let started = DevServer::start(App::builder(), Sources::default(), options).await;
        started.unwrap()
    }

    async fn error_of(mut dev_server: DevServer) -> AppError {
        let ended = dev_server.wait().await.unwrap_err();
        dev_server.stop().await;
        ended
    }

    // Each was Ok(()) before, so `replyhook dev` ended silently with exit code 0.
    #[tokio::test]
    async fn dev_server_wait_reports_failed_part() {
        let mut dev_server = start_dev_server().await;
        let worker: JoinHandle<Result<bool, AppError>> =
            tokio::spawn(async { panic!("+15550001111") });
        dev_server.app.as_mut().unwrap().worker = worker;
        let ended = error_of(dev_server).await;
        assert_eq!(
            ended.to_string(),
            "the server's worker ended: its task panicked"
        );
        let dev_server = start_dev_server().await;
        dev_server.app.as_ref().unwrap().listeners[0].abort();
        let ended = error_of(dev_server).await;
        assert_eq!(
            ended.to_string(),
            "a listener of the server ended: its task was aborted"
        );
        let mut dev_server = start_dev_server().await;
        dev_server.emulator_task =
            tokio::spawn(async { Err(std::io::Error::other("no descriptors")) });
        let ended = error_of(dev_server).await;
        assert_eq!(ended.to_string(), "the emulator ended: no descriptors");
        assert_eq!(ended.kind(), AppErrorKind::Ended);
    }
}
