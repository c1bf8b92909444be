//! A whole Twilio on the desk: the emulator, and beside it our own server, which believes that it is Twilio.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bot::ReloadHook;
use super::own_server::{Disturbance, OwnState};
use super::{App, AppBuilder, Tunnel, run};
use crate::admin;
use crate::clock::{Advance, ShiftedClock};
use crate::config::{SigningSettings, Sources};
use crate::emulator::{Emulator, EmulatorOptions};
use crate::redact::redacted_url;
use crate::sending::Sender;
use crate::server;
use crate::sid::AccountSid;
use crate::signature::PublicUrl;
use crate::start_error::StartError;
use crate::store::Store;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// The emulator's port, unless another is named.
const EMULATOR_PORT: u16 = 8081;
/// Our server's port, unless another is named.
const SERVER_PORT: u16 = 8080;
/// Ports that are tried after a default that is busy.
const TRIES: u16 = 100;
/// What the environment and the file say of these is Twilio's, or for the world; the desk has its own.
const PASSED_OVER: [&str; 4] = ["twilio.", "server.public_url", "server.listen", "store.url"];

/// What stands on the desk.
///
/// ```
/// use replyhook::DeskOptions;
///
/// let mut options = DeskOptions::default();
/// options.webhook = Some("http://localhost:3000/sms".to_owned());
/// options.emulator_port = Some(0);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct DeskOptions {
    /// Another server's webhook, in any language. Without one our own server runs.
    pub webhook: Option<String>,
    /// That server's fallback URL.
    pub fallback: Option<String>,
    /// That server's status callback URL.
    pub status_callback: Option<String>,
    /// The emulator's port. Without one 8081, or the next that is free; 0 is any.
    pub emulator_port: Option<u16>,
    /// Our server's port. Without one 8080, or the next that is free; 0 is any.
    pub port: Option<u16>,
    /// Where a tunnel leads to our own server from: it then takes the real account's webhooks for this URL as well, with
    /// the token of `TWILIO_AUTH_TOKEN`. The emulator never has that token.
    pub tunnel_url: Option<String>,
    /// A folder that conversations are written into, pseudonymised, for the test kit to replay.
    pub record: Option<PathBuf>,
    /// The folder whose files messages may name by their path. Without one, the working directory.
    pub media_dir: Option<PathBuf>,
    /// Whether the emulator's control interface and page need the key of this run, which
    /// [`Emulator::page_url`](crate::emulator::Emulator::page_url) carries.
    pub protect: bool,
    /// Whether logs are written.
    pub logs: bool,
    /// Whether the private listener is opened where `admin.listen` says, on loopback.
    pub private: bool,
    /// The clock of everything. Without one the machine's, which can be moved on.
    pub clock: Option<Arc<dyn Advance>>,
}

/// URLs are shown without passwords.
impl fmt::Debug for DeskOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<String>| url.as_deref().map(redacted_url);
        f.debug_struct("DeskOptions")
            .field("webhook", &shown(&self.webhook))
            .field("fallback", &shown(&self.fallback))
            .field("status_callback", &shown(&self.status_callback))
            .field("emulator_port", &self.emulator_port)
            .field("port", &self.port)
            .field("tunnel_url", &shown(&self.tunnel_url))
            .field("record", &self.record)
            .field("media_dir", &self.media_dir)
            .field("protect", &self.protect)
            .finish_non_exhaustive()
    }
}

/// The emulator and the server beside it, running until they are stopped.
///
/// ```no_run
/// use replyhook::config::Sources;
/// use replyhook::{App, Desk, DeskOptions, Echo};
///
/// # async fn run() -> Result<(), replyhook::StartError> {
/// let bot = App::builder().handler(Echo);
/// let mut desk = Desk::start(bot, Sources::from_env(), DeskOptions::default()).await?;
/// println!("Chat with your bot: {}", desk.emulator().url());
/// desk.ended().await?;
/// # Ok(()) }
/// ```
pub struct Desk {
    emulator: Emulator,
    own: Option<Own>,
    plan: Plan,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
    ignored: Vec<String>,
}

/// What our own server is made with, each time that it is.
struct Plan {
    sources: Sources,
    clock: Arc<dyn Advance>,
    tunnel: Option<Tunnel>,
    disturbance: Arc<Disturbance>,
    account: AccountSid,
    /// Tells the page that rules were read anew.
    on_reload: ReloadHook,
}

impl Plan {
    fn build(&self, builder: AppBuilder, store: Option<Arc<dyn Store>>) -> Result<App, StartError> {
        let mut builder = builder
            .sources(self.sources.clone())
            .clock(self.clock.clone());
        builder.store = store.or(builder.store);
        builder.tunnel.clone_from(&self.tunnel);
        builder.only = Some(self.account);
        builder.on_reload = Some(self.on_reload.clone());
        self.disturbance
            .put_around(builder, self.clock.clone())
            .build()
    }
}

/// Our own server, running.
struct Own {
    url: String,
    address: SocketAddr,
    store: Arc<dyn Store>,
    sender: Sender,
    handler: &'static str,
    store_url: String,
    admin: Option<SocketAddr>,
    stop: CancellationToken,
    worker: JoinHandle<Result<bool, StartError>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Desk {
    /// Starts everything, on loopback. `builder` makes our own server from the settings of `sources`, of which tokens,
    /// accounts, addresses and the store's are passed over: here they are the desk's own. Only `DATABASE_URL` counts.
    ///
    /// # Errors
    /// [`StartError`] for settings, a named port that is busy, or a store that cannot be opened.
    pub async fn start(
        builder: AppBuilder,
        sources: Sources,
        options: DeskOptions,
    ) -> Result<Self, StartError> {
        let clock = options
            .clock
            .clone()
            .unwrap_or_else(|| Arc::new(ShiftedClock::default()));
        let listener = bind("--emulator-port", options.emulator_port, EMULATOR_PORT).await?;
        let public = match options.webhook {
            Some(_) => None,
            None => Some(bind("--port", options.port, SERVER_PORT).await?),
        };
        let calls = calls(&options, public.as_ref());
        let emulator = Emulator::new(calls, clock.clone(), &listener)
            .map_err(|error| StartError::config(&error))?;
        let tunnel = match &options.tunnel_url {
            Some(url) => Some(tunnel(url, &sources)?),
            None => None,
        };
        let (mut sources, mut ignored) = settings(sources, &emulator, public.as_ref());
        if !options.private {
            sources.fixed.insert("admin.listen", String::new());
        }
        if tunnel.is_some() {
            // Whoever finds the tunnel is not told why they are refused.
            let enforced = "enforce".to_owned();
            sources.fixed.insert("signature.mode", enforced);
            ignored.retain(|name| !TUNNELS.contains(&name.as_str()));
        }
        let plan = Plan {
            sources,
            clock,
            tunnel,
            disturbance: Arc::default(),
            account: emulator.account_sid(),
            on_reload: announcing(&emulator),
        };
        let own = match public {
            Some(public) => {
                let app = plan.build(builder, None)?;
                if options.logs {
                    logs::install(app.settings());
                }
                let state = (plan.disturbance.clone(), &emulator);
                Some(Own::start(app, public, state, false).await?)
            }
            None => None,
        };
        let stop = CancellationToken::new();
        let (served, stopped) = (emulator.clone(), stop.clone().cancelled_owned());
        let serving = tokio::spawn(async move { served.serve(listener, stopped).await });
        Ok(Self {
            emulator,
            own,
            plan,
            stop,
            serving,
            ignored,
        })
    }

    /// What plays Twilio.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Where our own server is, if it runs.
    pub fn server_url(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.url.as_str())
    }

    /// What is to be entered at Twilio, where a tunnel leads here: primary, fallback and status callback URL.
    pub fn tunnelled(&self) -> Option<[String; 3]> {
        let url = &self.plan.tunnel.as_ref()?.public_url;
        Some(["/webhook", "/webhook/fallback", "/webhook/status"].map(|path| url.endpoint(path)))
    }

    /// What answers there: the kind of a built-in handler, or `your handler`.
    pub fn handler(&self) -> Option<&'static str> {
        self.own.as_ref().map(|own| own.handler)
    }

    /// Where our own server keeps everything.
    pub fn store_url(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.store_url.as_str())
    }

    /// What sends first through our own server, if it runs: [`App::sender`] of the app that is on the desk.
    pub fn sender(&self) -> Option<Sender> {
        self.own.as_ref().map(|own| own.sender.clone())
    }

    /// Where the private listener is, if `admin.listen` is set.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.own.as_ref().and_then(|own| own.admin)
    }

    /// The clock of everything.
    pub fn clock(&self) -> &Arc<dyn Advance> {
        &self.plan.clock
    }

    /// How often our own server's handler was called.
    pub fn handler_runs(&self) -> u64 {
        *self.plan.disturbance.runs.borrow()
    }

    /// Completes once the handler was called more than `runs` times.
    pub async fn handler_called(&self, runs: u64) {
        let mut called = self.plan.disturbance.runs.subscribe();
        // The sender is as old as this.
        let _ = called.wait_for(|now| *now > runs).await;
    }

    /// Stops our own server, with its drain, and starts what `builder` makes of the settings as they are now, on the same
    /// store. Where that cannot be built, the old one goes on.
    ///
    /// # Errors
    /// [`StartError`] as [`Desk::start`] has it.
    pub async fn restart(&mut self, builder: AppBuilder) -> Result<(), StartError> {
        let Some(own) = &self.own else {
            return Err(StartError::config(&"no server of ours runs here"));
        };
        let app = self.plan.build(builder, Some(own.store.clone()))?;
        let address = own.address;
        // What would fail is found out while the old one still runs.
        if let Some(wanted) = private_address(&app)
            && own.admin != Some(wanted)
        {
            drop(run::listen("admin.listen", wanted).await?);
        }
        if let Some(own) = self.own.take() {
            own.stop().await;
        }
        let public = run::listen("--port", address).await?;
        let state = (self.plan.disturbance.clone(), &self.emulator);
        self.own = Some(Own::start(app, public, state, true).await?);
        Ok(())
    }

    /// Environment variables that are set, and not the desk's.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Ends when the emulator or the worker does, which they do not by themselves.
    ///
    /// # Errors
    /// [`StartError`] when the worker has ended.
    pub async fn ended(&mut self) -> Result<(), StartError> {
        let Some(own) = &mut self.own else {
            let _ = (&mut self.serving).await;
            return Ok(());
        };
        tokio::select! {
            worker = &mut own.worker => worker.unwrap_or(Ok(true)).map(|_| ()),
            _ = &mut self.serving => Ok(()),
        }
    }

    /// Stops everything, with the time that `server.shutdown_timeout_s` gives to what is under way.
    pub async fn stop(self) {
        if let Some(own) = self.own {
            own.stop().await;
        }
        self.stop.cancel();
        if !self.serving.is_finished() {
            let _ = self.serving.await;
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("emulator", &self.emulator)
            .field("server", &self.server_url())
            .finish_non_exhaustive()
    }
}

fn announcing(emulator: &Emulator) -> ReloadHook {
    let emulator = emulator.clone();
    Arc::new(move |outcome| emulator.announce_reload(outcome))
}

/// A listener on loopback. A default that is busy moves on; what was named does not.
async fn bind(name: &str, port: Option<u16>, default: u16) -> Result<TcpListener, StartError> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = port {
        return run::listen(name, at(port)).await;
    }
    let mut last = Err(StartError::config(&"no port"));
    for port in default..default + TRIES {
        last = run::listen(name, at(port)).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

fn url_of(listener: &TcpListener) -> String {
    let address = listener.local_addr();
    address.map_or_else(|_| String::new(), |address| format!("http://{address}"))
}

fn calls(options: &DeskOptions, public: Option<&TcpListener>) -> EmulatorOptions {
    let ours = |path| public.map(|public| format!("{}{path}", url_of(public)));
    let webhook = options.webhook.clone().or_else(|| ours("/webhook"));
    let mut calls = EmulatorOptions::new(webhook.unwrap_or_default());
    calls.fallback = options
        .fallback
        .clone()
        .or_else(|| ours("/webhook/fallback"));
    calls.status_callback = options
        .status_callback
        .clone()
        .or_else(|| ours("/webhook/status"));
    calls.record.clone_from(&options.record);
    calls.media_dir.clone_from(&options.media_dir);
    calls.protect = options.protect;
    calls
}

/// The environment's that a tunnel needs.
const TUNNELS: [&str; 6] = [
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_AUTH_TOKEN_FILE",
    "TWILIO_AUTH_TOKEN_SECONDARY",
    "TWILIO_AUTH_TOKEN_SECONDARY_FILE",
    "PUBLIC_URL",
];

fn tunnel(url: &str, sources: &Sources) -> Result<Tunnel, StartError> {
    let (public_url, _) = PublicUrl::parse(url)
        .map_err(|error| StartError::config(&format!("--tunnel-url: {error}")))?;
    let real = SigningSettings::load(sources).map_err(|error| StartError::config(&error))?;
    let account = real.twilio.account_sid.ok_or_else(|| {
        let needed =
            "--tunnel-url needs the real account: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN";
        StartError::config(&needed)
    })?;
    let tokens = std::iter::once(real.twilio.auth_token).chain(real.twilio.auth_token_secondary);
    Ok(Tunnel {
        public_url,
        account,
        tokens: tokens.collect(),
    })
}

/// The settings of a server that takes the emulator for Twilio.
fn settings(
    mut sources: Sources,
    emulator: &Emulator,
    public: Option<&TcpListener>,
) -> (Sources, Vec<String>) {
    sources.ignored.extend(PASSED_OVER);
    let has_store = ["DATABASE_URL", "DATABASE_URL_FILE"]
        .iter()
        .any(|name| sources.env.get(*name).is_some_and(|url| !url.is_empty()));
    if has_store {
        sources.ignored.retain(|key| *key != "store.url");
    }
    let ignored = sources.ignored_env();
    let ignored = ignored.into_iter().map(str::to_owned).collect();
    let url = public.map(url_of).unwrap_or_default();
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
    sources.defaults.insert("admin.listen", String::new());
    (sources, ignored)
}

/// Where the private listener is to be: nothing of a desk is for others.
fn private_address(app: &App) -> Option<SocketAddr> {
    let wanted = app.settings.admin.listen?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.port())))
}

impl Own {
    async fn start(
        mut app: App,
        public: TcpListener,
        (disturbance, emulator): (Arc<Disturbance>, &Emulator),
        store_is_open: bool,
    ) -> Result<Self, StartError> {
        let url = url_of(&public);
        let address = public
            .local_addr()
            .map_err(|error| StartError::listen("--port", &url, &error))?;
        app.worker.is_open = store_is_open;
        app.worker.open().await?;
        let store = app.admin.store.clone();
        let limits = run::connection_limits(&app.settings.server);
        let stop = CancellationToken::new();
        let mut listeners = Vec::new();
        let mut private = None;
        if let Some(address) = private_address(&app) {
            let listener = run::listen("admin.listen", address).await?;
            private = listener.local_addr().ok();
            let router = admin::router(app.admin.clone());
            let metrics = Arc::new(Metrics::new());
            let limits = limits.private(limits.connections);
            let serve = server::serve(listener, router, limits, metrics, stop.clone());
            listeners.push(tokio::spawn(serve));
        }
        let state = OwnState {
            store: store.clone(),
            clock: app.worker.clock.clone(),
            deadline: app.settings.reply.deadline,
            pause: app
                .settings
                .reply
                .debounce
                .min(app.settings.reply.deadline / 2),
            handler: app.handler,
            store_url: app.worker.store_url.clone(),
            disturbance,
        };
        let (handler, store_url) = (app.handler, app.worker.store_url.clone());
        let sender = app.sender();
        emulator.attach(Arc::new(state));
        let metrics = app.admin.metrics.clone();
        let worker = tokio::spawn(app.worker.run(stop.clone().cancelled_owned()));
        let serve = server::serve(public, app.router, limits, metrics, stop.clone());
        listeners.push(tokio::spawn(serve));
        Ok(Self {
            url,
            address,
            store,
            sender,
            handler,
            store_url,
            admin: private,
            stop,
            worker,
            listeners,
        })
    }

    async fn stop(self) {
        self.stop.cancel();
        // Answers first, as everywhere: what is under way is drained by the worker. One that has ended was waited for.
        if !self.worker.is_finished() {
            let _ = self.worker.await;
        }
        for listener in self.listeners {
            listener.abort();
            let _ = listener.await;
        }
    }
}
