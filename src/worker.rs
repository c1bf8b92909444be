//! What has to run beside the webhooks: it opens the store, takes up what was left behind, sends what goes by REST, and
//! forgets what is old enough.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::dispatch::Dispatcher;
use crate::lifecycle::{Lifecycle, Stage};
use crate::start_error::StartError;
use crate::store::{Access, Expired, Retention, Store};
use crate::telemetry::metrics::Metrics;

/// How often the samples of histograms are folded, and what is kept is counted.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often the store is checked, so that an outage is known within 10 s without traffic.
const CHECK: Duration = Duration::from_secs(3);
/// How often old content is looked for.
const EXPIRY: Duration = Duration::from_hours(1);
/// For giving up what this process holds, at the end.
const CLOSE: Duration = Duration::from_secs(1);

/// What looks after something, for as long as it is polled.
pub(crate) type Watch = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What has to run beside the webhooks.
///
/// ```no_run
/// use replyhook::{App, Echo};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let (webhooks, worker) = App::builder().handler(Echo).build()?.into_parts();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// tokio::spawn(async move { axum::serve(listener, webhooks).await });
/// let is_done = worker.run(async { let _ = tokio::signal::ctrl_c().await; }).await?;
/// println!("{}", if is_done { "all answered" } else { "something is left for the next start" });
/// # Ok(()) }
/// ```
pub struct Worker {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    pub(crate) drain: Duration,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_url: String,
    pub(crate) is_open: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) delivery: Arc<Delivery>,
    /// Something else that runs as long as this.
    pub(crate) watch: Option<Watch>,
    /// Of content, and of texts.
    pub(crate) retention: (Duration, Duration),
}

impl Worker {
    /// Opens the store and then the webhooks, and closes them at `shutdown`: new messages get 503 from then on, and what is
    /// under way has `server.shutdown_timeout_s` to finish; so has a store that is away, to take what fallback calls were answered
    /// meanwhile. Returns whether all of it did.
    ///
    /// # Errors
    /// [`StartError`] when the store cannot be opened.
    pub fn run<S>(self, shutdown: S) -> impl Future<Output = Result<bool, StartError>> + Send
    where
        S: Future<Output = ()> + Send,
    {
        self.run_beside(shutdown, std::future::ready(()))
    }

    /// The same where it is known when the last request is `answered`.
    // Opens at the call where it can: a request, or a signal, may come before the first poll.
    pub(crate) fn run_beside<S, A>(
        mut self,
        shutdown: S,
        answered: A,
    ) -> impl Future<Output = Result<bool, StartError>> + Send
    where
        S: Future<Output = ()> + Send,
        A: Future<Output = ()> + Send,
    {
        self.lifecycle.set(if self.is_open {
            Stage::Running
        } else {
            Stage::Opening
        });
        let ended = self.lifecycle.end_on_drop();
        async move {
            let _ended = ended;
            self.open().await?;
            self.lifecycle.set(Stage::Running);
            tokio::select! {
                () = shutdown => {}
                () = self.upkeep() => {}
                () = self.check_store() => {}
                () = self.expire() => {}
                () = self.dispatcher.clone().work_off() => {}
                () = self.delivery.clone().work() => {}
                () = self.delivery.call_back() => {}
                () = self.watch() => {}
            }
            self.lifecycle.set(Stage::Draining);
            let drained = tokio::time::timeout(self.drain, self.finish(answered)).await;
            let forgets = self.dispatcher.forget_outage_answers();
            // What is still held would otherwise be waited for, on other machines.
            let closed = tokio::time::timeout(CLOSE, self.store.close()).await;
            if !matches!(closed, Ok(Ok(()))) {
                tracing::warn!(
                    "what this process holds is free only after a while: the store does not answer"
                );
            }
            Ok(drained.is_ok() && !forgets)
        }
    }

    /// Ends what is under way, and enters what was answered from memory to the last.
    async fn finish(&self, answered: impl Future<Output = ()>) {
        let finished = async {
            answered.await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        tokio::select! {
            () = finished => {}
            () = self.dispatcher.keep_entering() => {}
        }
        self.dispatcher.enter_all().await;
    }

    /// Opens the store now instead of when it runs, so that what is wrong with it is told before anything is served.
    ///
    /// # Errors
    /// [`StartError`] when the store cannot be opened.
    pub async fn open(&mut self) -> Result<(), StartError> {
        if !self.is_open {
            let opened = self.store.open(Access::Owner).await;
            opened.map_err(|error| StartError::store(&self.store_url, &error))?;
            self.is_open = true;
        }
        Ok(())
    }

    async fn watch(&self) {
        match &self.watch {
            Some(watch) => watch().await,
            None => std::future::pending().await,
        }
    }

    async fn upkeep(&self) {
        let mut every = tokio::time::interval(UPKEEP);
        let health = &self.dispatcher.store_report.health;
        loop {
            every.tick().await;
            self.metrics.upkeep();
            let outbox = self.store.outbox_state().await;
            if let Some(state) = health.read(outbox) {
                self.metrics.outbox(&state, self.clock.now());
            }
            let open = self.store.open_messages().await;
            if let Some(open) = health.read(open) {
                self.metrics.messages(&open, self.clock.now());
            }
        }
    }

    async fn check_store(&self) {
        let mut every = tokio::time::interval(CHECK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.dispatcher.check_store().await;
        }
    }

    async fn expire(&self) {
        loop {
            let begun = Instant::now();
            let (content, texts) = self.retention;
            let retention = Retention::new(content, texts, self.clock.now());
            let links = self.store.expire_links(self.clock.now()).await;
            let expired = self.store.expire(retention).await;
            let expired = expired.unwrap_or_else(|error| {
                self.dispatcher.store_report.failed("expire", &error);
                Expired::default()
            });
            self.dispatcher.report_expired(&expired.unanswered);
            let pause = if expired.more || links.unwrap_or(false) {
                Expired::pause_after(begun.elapsed())
            } else {
                EXPIRY
            };
            tokio::time::sleep(pause).await;
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
