//! [`AppBuilder`], and the [`App`] that it builds.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::bot::{Bot, fallback_texts};
use super::parts::{
    choices, delivery_policy, dispatch_limits, routes, signature_layer, store_from_url,
};
use super::reload::{ReloadControl, ReloadHandle, ReloadHook, Reloader};
use super::tunnel::Tunnel;
use super::{files, outbound};
use crate::admin::{self, Admin};
use crate::api::{self, Api};
use crate::app_error::AppError;
use crate::clock::{Clock, SystemClock};
use crate::config::{Settings, Sources, Warning};
use crate::delivery::{DeliveryParts, OutboxWorker, ScheduledCancellation, UnsentHook};
use crate::dispatch::{
    ConsentChange, ConsentHook, Dispatcher, DispatcherParts, Guard, RejectedReplyHook,
};
use crate::events::{DeliveryStatus, EventParts, EventWorker};
use crate::forward::EventService;
use crate::handler::Handler;
use crate::lifecycle::Lifecycle;
use crate::media::MediaService;
use crate::message::{ConversationEvent, FallbackCause, InboundMessage, StatusUpdate};
use crate::outbound::OutboundClient;
use crate::probe::Instance;
use crate::sid::AccountSid;
use crate::store::{MessageFilter, MessageRow, Store, StoreHandle};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{OptOutLog, StoreHealth, StoreReport};
use crate::webhook::{
    self, ConversationEventHook, EndpointState, FallbackHook, InFlightLimit, StatusHook, Warnings,
    Webhooks,
};
use crate::worker::Worker;

/// Fallback calls accepted beyond `server.max_in_flight`, so that load shedding does not reject them too.
const FALLBACK_RESERVE: usize = 64;
/// Number of the latest messages among which the one of an unsent reply is searched.
const MAX_SEARCHED_MESSAGES: u32 = 200;

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
/// async fn main() -> Result<(), replyhook::AppError> {
///     App::builder().handler(bot).build()?.run().await
/// }
/// ```
///
/// To mount the webhooks in your own server, use [`App::into_parts`]. To validate signatures only, use
/// [`SignatureLayer`](crate::SignatureLayer).
pub struct App {
    pub(super) router: Router,
    pub(super) admin: Admin,
    /// The HTTP API, if it has a token.
    pub(super) api: Option<Arc<Api>>,
    pub(super) outbound: OutboundClient,
    pub(super) worker: Worker,
    pub(super) settings: Settings,
    pub(super) warnings: Vec<Warning>,
    /// Display name of the handler: the value of `handler.kind`, or `your handler`.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "only App::run and DevServer read it")
    )]
    pub(super) handler: &'static str,
    pub(super) reload: ReloadControl,
}

/// Builds an [`App`].
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
/// # Ok::<(), replyhook::AppError>(())
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
    pub(super) store: Option<StoreHandle>,
    /// Wraps the custom or built-in handler; `DevServer` injects faults with it.
    pub(super) wrap_handler: Option<HandlerWrapper>,
    /// Receives the reason why a reply cannot be sent; `DevServer` marks its message.
    pub(super) on_rejected_reply: Option<RejectedReplyHook>,
    pub(super) tunnel: Option<Tunnel>,
    /// Receives the result of each reload of the rules file.
    pub(super) on_reload: Option<ReloadHook>,
    /// Sends via the REST API for this account only; `None` sends for every account.
    pub(super) restrict_to: Option<AccountSid>,
}

pub(super) type HandlerWrapper = Box<dyn FnOnce(Arc<dyn Handler>) -> Arc<dyn Handler> + Send>;

impl AppBuilder {
    /// Replies to messages with `handler` instead of the built-in handler that `handler.kind` selects.
    #[must_use]
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Reads the settings from `sources` instead of the environment and `replyhook.toml`.
    #[must_use]
    pub fn sources(mut self, sources: Sources) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Reads the time from `clock` instead of the system clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Calls `hook` with each status callback.
    ///
    /// The response to Twilio does not depend on the hook, and waits at most 5 seconds for it.
    #[must_use]
    pub fn on_status<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(StatusUpdate) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_status = Some(Arc::new(move |update| Box::pin(hook(update))));
        self
    }

    /// Calls `hook` when Twilio calls the fallback URL, with the cause that Twilio reports.
    ///
    /// The handler still runs for the message.
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

    /// Calls `hook` with each Twilio Conversations event, if the webhooks of Conversations point at `/webhook`.
    ///
    /// replyhook verifies such requests, stores nothing of them, and never passes them to the handler. Twilio ignores
    /// TwiML in the response: it gets `<Response/>` when the hook has finished, or after 4 seconds.
    #[must_use]
    pub fn on_conversation_event<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(ConversationEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_conversation_event = Some(Arc::new(move |event| Box::pin(hook(event))));
        self
    }

    /// Calls `hook` with each opt-out, opt-in or help keyword. Such messages never reach the handler.
    #[must_use]
    pub fn on_consent<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(ConsentChange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_consent = Some(Arc::new(move |change| Box::pin(hook(change))));
        self
    }

    /// Persists everything in `store` instead of the store at `DATABASE_URL`.
    ///
    /// `store` is an [`SqliteStore`](crate::store::sqlite::SqliteStore), a
    /// [`PostgresStore`](crate::store::postgres::PostgresStore), or what [`store_from_url`] returns.
    #[must_use]
    pub fn store(mut self, store: impl Into<StoreHandle>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// Reads the settings and builds the app. Starts no task and opens no store or listener.
    ///
    /// # Errors
    /// [`AppError`] with all problems of the settings, or if the handler or its rules file cannot be used.
    pub fn build(self) -> Result<App, AppError> {
        let sources = self.sources.unwrap_or_else(Sources::from_env);
        let loaded = Settings::load(&sources).map_err(|problems| AppError::config(&problems))?;
        let (metrics, lifecycle) = (Arc::new(Metrics::new()), Arc::new(Lifecycle::default()));
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let bot = Bot::new(self.handler, &loaded.settings, &clock)?;
        let tunnel = self.tunnel.as_ref();
        let mut reloader = Reloader::new(sources, tunnel, &loaded, bot.rules, &metrics)?;
        let settings = loaded.settings;
        let store = store_or_default(self.store, &settings)?;
        // Dispatcher, outbox worker and media share `tasks`: `Worker` waits for all of them on shutdown.
        // `outbox` wakes the outbox worker as soon as a message is queued, before its next poll.
        let (tasks, outbox) = (TaskTracker::new(), Arc::new(Notify::new()));
        let store_health = Arc::new(StoreHealth::new(metrics.clone()));
        let keyring = reloader.snapshot.part(|parts| &parts.keyring);
        let account = reloader.snapshot.part(|parts| &parts.sending_account);
        let outbound = outbound::client(&settings, &store, &clock, account).waking(outbox.clone());
        let delivery = DeliveryParts {
            store: store.clone(),
            // Each component has its own report, so that one cannot use up the log lines of another.
            store_report: Arc::new(StoreReport::new(metrics.clone(), store_health.clone())),
            routes: Arc::new(routes(&settings, self.restrict_to, tunnel)),
            keyring: keyring.clone(),
            health: Arc::default(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            policy: delivery_policy(&settings),
            tasks: tasks.clone(),
            outbox: outbox.clone(),
            opted_out: Arc::default(),
            opt_out_log: Arc::new(OptOutLog::new(store.clone(), clock.clone())),
            on_unsent: unsent_hook(&store, self.on_rejected_reply.as_ref()),
        };
        let media = files::media_service(&settings, &delivery, &clock, &tasks);
        let events = event_worker(&settings, &delivery, &media, &store_health, &mut reloader)?;
        let dispatcher = Arc::new(Dispatcher::new(DispatcherParts {
            handler: wrap_handler(bot.handler.clone(), self.wrap_handler),
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            store_report: StoreReport::new(metrics.clone(), store_health.clone()),
            public_url: settings.server.public_url.clone(),
            limits: dispatch_limits(&settings),
            choices: choices(&settings),
            consent: reloader.snapshot.part(|parts| &parts.consent),
            guard: Guard::new(reloader.snapshot.part(|parts| &parts.guard)),
            fallback: fallback_texts(&settings)?,
            on_consent: self.on_consent,
            on_rejected_reply: self.on_rejected_reply,
            opt_out_log: delivery.opt_out_log.clone(),
            files: Arc::new(media.clone()),
            typing: outbound::typing(&settings, tunnel, keyring.clone(), &metrics),
            tasks: tasks.clone(),
            outbox,
            // Shared with `ScheduledCancellation`: an opt-out wakes it to cancel the user's scheduled messages.
            opted_out: delivery.opted_out.clone(),
        }));
        // Webhooks and the private listener report the same id, which `replyhook doctor` compares.
        let instance = Instance::random();
        let webhooks = Webhooks {
            dispatcher: dispatcher.clone(),
            store: store.clone(),
            store_report: StoreReport::new(metrics.clone(), store_health),
            metrics: metrics.clone(),
            in_flight: InFlightLimit::new(settings.server.max_in_flight, FALLBACK_RESERVE),
            clock: clock.clone(),
            on_status: self.on_status,
            on_fallback: self.on_fallback,
            on_conversation_event: self.on_conversation_event,
            warnings: Warnings::new(),
            media,
            instance,
        };
        let admin = admin(&delivery, &lifecycle, &dispatcher, instance, &reloader);
        Ok(App {
            reload: reloader.control.clone(),
            router: public_router(&settings, webhooks, &reloader, &lifecycle),
            api: outbound::http_api(&settings, &outbound, &admin, keyring),
            worker: Worker {
                lifecycle,
                metrics,
                tasks,
                shutdown_timeout: settings.server.shutdown_timeout,
                store,
                store_url: settings.store.url.to_string(),
                is_open: false,
                clock,
                outbox: Arc::new(OutboxWorker::new(&delivery)),
                cancellation: ScheduledCancellation::new(&delivery),
                events,
                reload: reloader.into_task(self.on_reload),
                dispatcher,
                retention: (settings.store.retention, settings.store.body_retention),
            },
            admin,
            outbound,
            settings,
            warnings: loaded.warnings,
            handler: bot.name,
        })
    }
}

fn public_router(
    settings: &Settings,
    webhooks: Webhooks,
    reloader: &Reloader,
    lifecycle: &Arc<Lifecycle>,
) -> Router {
    let endpoints = EndpointState::new(webhooks.metrics.clone(), lifecycle.clone());
    let (server, endpoints) = (&settings.server, Arc::new(endpoints));
    let verifier = reloader.snapshot.part(|parts| &parts.verifier);
    let signature = signature_layer(settings, verifier);
    let (url, health_path) = (&server.public_url, server.health_path.as_ref());
    webhook::router(Arc::new(webhooks), &endpoints, &signature, url, health_path)
}

/// Creates the worker that delivers events, if `handler.events_url` is set.
fn event_worker(
    settings: &Settings,
    delivery: &DeliveryParts,
    media: &MediaService,
    health: &Arc<StoreHealth>,
    reloader: &mut Reloader,
) -> Result<Option<Arc<EventWorker>>, AppError> {
    if settings.handler.events.is_none() {
        return Ok(None);
    }
    let target = reloader.snapshot.part(|parts| &parts.events);
    let service = EventService::new(target, delivery.clock.clone());
    let status = Arc::new(DeliveryStatus::default());
    let worker = EventWorker::new(EventParts {
        store: delivery.store.clone(),
        store_report: StoreReport::new(delivery.metrics.clone(), health.clone()),
        service: service.map_err(|error| AppError::config(&error))?,
        files: Arc::new(media.clone()),
        clock: delivery.clock.clone(),
        metrics: delivery.metrics.clone(),
        tasks: delivery.tasks.clone(),
        status: status.clone(),
    });
    // A reload lets a stopped delivery go on.
    reloader.event_status = Some(status);
    Ok(Some(Arc::new(worker)))
}

/// Returns the store of the builder, or else creates that of the settings. It records events if they are delivered.
fn store_or_default(
    store: Option<StoreHandle>,
    settings: &Settings,
) -> Result<Arc<dyn Store>, AppError> {
    let StoreHandle(store) = store.map_or_else(|| store_from_url(&settings.store.url), Ok)?;
    store.record_events(settings.handler.events.is_some());
    Ok(store)
}

/// Returns the parts of the private listener.
fn admin(
    delivery: &DeliveryParts,
    lifecycle: &Arc<Lifecycle>,
    dispatcher: &Arc<Dispatcher>,
    instance: Instance,
    reloader: &Reloader,
) -> Admin {
    Admin {
        lifecycle: lifecycle.clone(),
        metrics: delivery.metrics.clone(),
        store: delivery.store.clone(),
        rest: delivery.health.clone(),
        dispatcher: dispatcher.clone(),
        instance,
        events: reloader.event_status.clone(),
    }
}

/// Returns a hook that reports an unsent reply with the message that it answers.
fn unsent_hook(store: &Arc<dyn Store>, report: Option<&RejectedReplyHook>) -> Option<UnsentHook> {
    let (store, report) = (store.clone(), report?.clone());
    Some(Arc::new(move |id, reason| {
        let (store, report) = (store.clone(), report.clone());
        Box::pin(async move {
            let latest = MessageFilter {
                limit: MAX_SEARCHED_MESSAGES,
                ..MessageFilter::default()
            };
            let messages = store.messages(latest).await.unwrap_or_default();
            let is_answered =
                |message: &&MessageRow| message.replies.iter().any(|one| one.id == id);
            // An outbound message answers none.
            if let Some(message) = messages.iter().find(is_answered) {
                report(message.sid, &format!("the reply cannot be sent: {reason}"));
            }
        })
    }))
}

fn wrap_handler(handler: Arc<dyn Handler>, wrapper: Option<HandlerWrapper>) -> Arc<dyn Handler> {
    match wrapper {
        Some(wrapper) => wrapper(handler),
        None => handler,
    }
}

impl App {
    /// Returns a builder that reads its settings from the environment and `replyhook.toml`.
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// Returns the settings of this app.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the store, for example to read a customer service window or to record an opt-in.
    ///
    /// [`Worker::open`] opens the store. Before that, every method fails with
    /// [`NotOpen`](crate::store::StoreErrorKind::NotOpen).
    ///
    /// ```no_run
    /// use replyhook::store::{ConsentAction, ConsentSource, ConsentRecord, ConsentScope};
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
    ///     source: ConsentSource::Api,
    ///     evidence: None,
    ///     note: Some("order form, box 2".to_owned()),
    ///     at: SystemClock.now(),
    /// };
    /// store.record_consent(agreed).await?;
    /// # Ok(()) }
    /// ```
    pub fn store(&self) -> StoreHandle {
        StoreHandle(self.admin.store.clone())
    }

    /// Returns a client that queues outbound messages, within the limits of consent and the customer service window.
    ///
    /// The running [`Worker`] delivers them. See [`outbound`](crate::outbound) for an example.
    pub fn outbound(&self) -> OutboundClient {
        self.outbound.clone()
    }

    /// Returns a handle that makes the running [`Worker`] read the settings again. [`App::run`] uses it on SIGHUP.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.requests.clone()
    }

    /// Returns warnings about valid but suspicious settings; [`App::run`] logs them.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Splits the app into the webhook router, to mount in your own server, and the worker that must run with it.
    ///
    /// While the worker does not run, the webhooks respond with 503 and the reason. The router verifies requests for
    /// `PUBLIC_URL`. It has each route with and without the path prefix of that URL, so you can merge it, or nest it at
    /// the prefix.
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

    /// Returns the private endpoints `/livez`, `/readyz` and `/metrics`, for use with [`App::into_parts`]. With `admin.token`,
    /// the HTTP API below `/v1` is one of them.
    ///
    /// Mount them on a listener that is not reachable from the internet.
    pub fn admin_router(&self) -> Router {
        let router = admin::router(self.admin.clone());
        match &self.api {
            Some(api) => router.nest(api::PREFIX, api::router(api.clone())),
            None => router,
        }
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
