//! The only place where parts meet: settings and your code become a router and a worker, or a running server.

mod bot;
#[cfg(all(feature = "server", feature = "emulator"))]
mod desk;
mod files;
#[cfg(all(feature = "server", feature = "emulator"))]
mod own_server;
mod parts;
#[cfg(feature = "server")]
mod run;
mod sending;

#[cfg(all(feature = "server", feature = "emulator"))]
pub use desk::{Desk, DeskOptions};
pub use parts::{open_later, verifier};

use std::fmt;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::bot::{Bot, ReloadHook, document};
use self::parts::{delivery_policy, dispatch_limits, guard, keyring, routes, signature_layer};
use crate::admin::{self, Admin};
use crate::clock::{Clock, SystemClock};
use crate::config::{Settings, Sources, Warning};
use crate::delivery::Delivery;
use crate::dispatch::{ConsentChange, ConsentHook, Dispatcher};
use crate::handler::Handler;
use crate::lifecycle::Lifecycle;
use crate::message::{ConversationEvent, FallbackCause, InboundMessage, StatusUpdate};
use crate::probe::Instance;
use crate::secret::Secret;
use crate::sending::Sender;
use crate::sid::AccountSid;
use crate::signature::PublicUrl;
use crate::start_error::StartError;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreHealth, StoreReport, Throttle};
use crate::webhook::{
    self, ConversationEventHook, FallbackHook, Front, Room, StatusHook, Warnings, Webhooks,
};
use crate::worker::Worker;

/// Fallback calls that are answered when everything else is shed.
const FALLBACK_RESERVE: usize = 64;

/// A bot, ready to run.
///
/// ```no_run
/// use replyhook::{App, Context, InboundMessage};
///
/// async fn bot(_cx: Context, message: InboundMessage) -> String {
///     format!("You said: {}", message.body)
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), replyhook::StartError> {
///     App::builder().handler(bot).build()?.run().await
/// }
/// ```
///
/// To mount the webhooks in a server of your own, take [`App::into_parts`]; for the signature alone,
/// [`SignatureLayer`](crate::signature::SignatureLayer).
pub struct App {
    router: Router,
    admin: Admin,
    sender: Sender,
    worker: Worker,
    settings: Settings,
    warnings: Vec<Warning>,
    /// What answers: the kind of a built-in handler, or yours.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "App::run and the desk read it")
    )]
    handler: &'static str,
}

/// Collects what an [`App`] is made of.
///
/// ```
/// use replyhook::config::Sources;
/// use replyhook::{App, ConsentChange, Context, InboundMessage, StatusUpdate};
///
/// async fn bot(_cx: Context, message: InboundMessage) -> String {
///     format!("You said: {}", message.body)
/// }
///
/// let settings = Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "https://bot.example.com"),
///     ("DATABASE_URL", "sqlite::memory:"),
/// ]);
/// let app = App::builder()
///     .handler(bot)
///     .sources(settings)
///     .on_status(|update: StatusUpdate| async move { println!("{:?}", update.status) })
///     .on_consent(|change: ConsentChange| async move { println!("{:?}", change.kind) })
///     .build()?;
/// assert!(app.warnings().is_empty());
/// # Ok::<(), replyhook::StartError>(())
/// ```
#[derive(Default)]
pub struct AppBuilder {
    sources: Option<Sources>,
    handler: Option<Arc<dyn Handler>>,
    clock: Option<Arc<dyn Clock>>,
    on_status: Option<StatusHook>,
    on_fallback: Option<FallbackHook>,
    on_conversation_event: Option<ConversationEventHook>,
    on_consent: Option<ConsentHook>,
    store: Option<Arc<dyn Store>>,
    /// Put around the handler, whichever it is.
    around: Option<Around>,
    tunnel: Option<Tunnel>,
    /// Is told whether changed rules are obeyed.
    on_reload: Option<ReloadHook>,
    /// The account whose messages are sent; without one every account's.
    only: Option<AccountSid>,
}

/// A real account behind a tunnel, beside the emulator's.
#[derive(Clone)]
struct Tunnel {
    public_url: PublicUrl,
    account: AccountSid,
    tokens: Vec<Secret>,
}

type Around = Box<dyn FnOnce(Arc<dyn Handler>) -> Arc<dyn Handler> + Send>;

impl AppBuilder {
    /// Answers messages with `handler` instead of the one that `handler.kind` names.
    #[must_use]
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Takes settings from `sources` instead of the environment and `replyhook.toml`.
    #[must_use]
    pub fn sources(mut self, sources: Sources) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Is told what becomes of messages that were sent. Twilio has its answer whatever the hook does.
    #[must_use]
    pub fn on_status<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(StatusUpdate) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_status = Some(Arc::new(move |update| Box::pin(hook(update))));
        self
    }

    /// Is told that Twilio called the fallback URL, and why. The handler is asked all the same.
    #[must_use]
    pub fn on_fallback<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(FallbackCause, InboundMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_fallback = Some(Arc::new(move |cause, message| {
            Box::pin(hook(cause, message))
        }));
        self
    }

    /// Is told of what happens in Twilio Conversations, where its webhooks are pointed at `/webhook`: such requests are
    /// verified, and never reach the handler. Nothing of them is kept, and Twilio executes no answer: it gets `<Response/>`,
    /// at once or within 4 seconds.
    #[must_use]
    pub fn on_conversation_event<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(ConversationEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_conversation_event = Some(Arc::new(move |event| Box::pin(hook(event))));
        self
    }

    /// Is told of consent words: they never reach the handler.
    #[must_use]
    pub fn on_consent<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(ConsentChange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_consent = Some(Arc::new(move |change| Box::pin(hook(change))));
        self
    }

    /// Keeps everything in `store` instead of the one that `DATABASE_URL` names.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Reads the settings and puts everything together. Nothing runs yet.
    ///
    /// # Errors
    /// [`StartError`] with every problem of the settings.
    pub fn build(self) -> Result<App, StartError> {
        let sources = self.sources.unwrap_or_else(Sources::from_env);
        let loaded = Settings::load(&sources).map_err(|problems| StartError::config(&problems))?;
        let settings = loaded.settings;
        let (metrics, lifecycle) = (Arc::new(Metrics::new()), Arc::new(Lifecycle::default()));
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let bot = match self.handler {
            Some(handler) => Bot::yours(handler),
            None => Bot::built_in(&settings, &clock)?,
        };
        let handler = surrounded(bot.handler.clone(), self.around);
        let store = self
            .store
            .map_or_else(|| open_later(&settings.store.url), Ok)?;
        let (tasks, outbox) = (TaskTracker::new(), Arc::new(Notify::new()));
        let store_health = Arc::new(StoreHealth::new(metrics.clone()));
        let keyring = Arc::new(keyring(&settings, self.tunnel.as_ref()));
        let sender = sending::sender(&settings, &store, &clock, &keyring).waking(outbox.clone());
        let delivery = Arc::new(Delivery {
            store: store.clone(),
            routes: routes(&settings, self.only, self.tunnel.as_ref()),
            keyring: keyring.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            policy: delivery_policy(&settings),
            tasks: tasks.clone(),
            outbox: outbox.clone(),
            opted_out: Arc::default(),
            health: Arc::default(),
            store_report: StoreReport::new(metrics.clone(), store_health.clone()),
            warnings: Throttle::new(10),
        });
        let media = files::media(&settings, &delivery, &clock, &tasks);
        let dispatcher = Arc::new(Dispatcher {
            handler,
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            store_report: StoreReport::new(metrics.clone(), store_health.clone()),
            public_url: settings.server.public_url.clone(),
            limits: dispatch_limits(&settings),
            consent: bot.consent_rules(&settings)?,
            guard: guard(&settings),
            apology: document(&settings.reply.fallback_text)?,
            on_consent: self.on_consent,
            files: Arc::new(media.clone()),
            typing: sending::typing(&settings, self.tunnel.as_ref(), keyring),
            tasks: tasks.clone(),
            outbox,
            opted_out: delivery.opted_out.clone(),
            state: crate::dispatch::DispatchState::default(),
        });
        let instance = Instance::random();
        let webhooks = Webhooks {
            dispatcher: dispatcher.clone(),
            store: store.clone(),
            store_report: StoreReport::new(metrics.clone(), store_health),
            metrics: metrics.clone(),
            room: Room::new(settings.server.max_in_flight, FALLBACK_RESERVE),
            clock: clock.clone(),
            on_status: self.on_status,
            on_fallback: self.on_fallback,
            on_conversation_event: self.on_conversation_event,
            warnings: Warnings::new(),
            media,
            instance,
        };
        let front = Arc::new(Front::new(metrics.clone(), lifecycle.clone()));
        let signature = signature_layer(&settings, self.tunnel)?;
        let prefix = settings.server.public_url.prefix();
        let router = webhook::router(Arc::new(webhooks), &front, &signature, prefix);
        let admin = Admin {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            store: store.clone(),
            rest: delivery.health.clone(),
            dispatcher: dispatcher.clone(),
            instance,
        };
        Ok(App {
            router,
            worker: Worker {
                lifecycle,
                metrics,
                tasks,
                drain: settings.server.shutdown_timeout,
                store,
                store_url: settings.store.url.to_string(),
                is_open: false,
                clock,
                delivery,
                watch: bot.watch(&settings, &dispatcher, self.on_reload)?,
                dispatcher,
                retention: (settings.store.retention, settings.store.body_retention),
            },
            admin,
            sender,
            settings,
            warnings: loaded.warnings,
            handler: bot.name,
        })
    }
}

fn surrounded(handler: Arc<dyn Handler>, around: Option<Around>) -> Arc<dyn Handler> {
    match around {
        Some(around) => around(handler),
        None => handler,
    }
}

impl App {
    /// Begins with the environment and `replyhook.toml`.
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// The settings it was built with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where everything is kept: for a bot that asks for consents and windows, or records that somebody has agreed to be
    /// written to. It is open once the worker is: before that every method fails with
    /// [`NotOpen`](crate::store::StoreErrorKind::NotOpen).
    ///
    /// ```no_run
    /// use replyhook::store::{ConsentAction, ConsentHow, ConsentRecord, ConsentScope};
    /// use replyhook::{App, Clock, SystemClock};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder().build()?;
    /// let store = app.store();
    /// let (_webhooks, mut worker) = app.into_parts();
    /// worker.open().await?;
    /// let agreed = ConsentRecord {
    ///     scope: ConsentScope::Sender("whatsapp:+15550002222".into()),
    ///     user: "whatsapp:+15550001111".into(),
    ///     action: ConsentAction::OptIn,
    ///     how: ConsentHow::Api,
    ///     evidence: None,
    ///     note: Some("order form, box 2".to_owned()),
    ///     at: SystemClock.now(),
    /// };
    /// store.record_consent(agreed).await?;
    /// # Ok(()) }
    /// ```
    pub fn store(&self) -> Arc<dyn Store> {
        self.admin.store.clone()
    }

    /// Sends messages that answer nothing: to whom, when and what your program likes, within what consent and the window
    /// allow. Use it beside the running worker, which delivers; see [`sending`](crate::sending).
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// What in the settings works and is probably not meant; [`App::run`] logs it.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The webhooks, to be mounted in a server of your own, and the worker that has to run beside them: without it they
    /// answer 503 and say why.
    ///
    /// The router verifies requests for `PUBLIC_URL`; nest it where that leads.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let stopped = std::future::pending::<()>();
    /// let (webhooks, mut worker) = replyhook::App::builder().build()?.into_parts();
    /// worker.open().await?;
    /// tokio::spawn(worker.run(stopped));
    /// let app = axum::Router::new().merge(webhooks);
    /// # Ok(()) }
    /// ```
    pub fn into_parts(self) -> (Router, Worker) {
        (self.router, self.worker)
    }

    /// The private endpoints `/livez`, `/readyz` and `/metrics`, for [`App::into_parts`]: mount them where the internet
    /// does not reach.
    pub fn admin_router(&self) -> Router {
        admin::router(self.admin.clone())
    }

    /// Serves until SIGTERM or SIGINT, then drains. Installs logs unless the process has its own.
    ///
    /// A second signal, or a drain that takes longer than `server.shutdown_timeout_s`, ends the *process* with 143 or 130.
    ///
    /// # Errors
    /// [`StartError`] when an address cannot be listened on.
    #[cfg(feature = "server")]
    pub async fn run(self) -> Result<(), StartError> {
        run::run(self).await
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder").finish_non_exhaustive()
    }
}
