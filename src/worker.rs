//! Background worker of the webhooks: opens and checks the store, processes the backlog, sends the outbox, deletes
//! expired content, and shuts down.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::app_error::AppError;
use crate::clock::Clock;
use crate::delivery::{OutboxWorker, ScheduledCancellation};
use crate::dispatch::{Backlog, Dispatcher, report_expired};
use crate::events::EventWorker;
use crate::lifecycle::{Lifecycle, Stage};
use crate::store::{Access, ExpiryReport, Retention, Store};
use crate::supervisor::{Supervisor, TaskFailed};
use crate::telemetry::TrafficLog;
use crate::telemetry::metrics::Metrics;

/// Interval at which histogram samples are folded, and backlog and outbox are counted.
const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the store checks. With a check's own timeout, an outage is noticed within 10 s even without traffic.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// Interval at which expired content is deleted, unless more is left to delete.
const EXPIRY_INTERVAL: Duration = Duration::from_hours(1);
/// Maximum time for the release of this process's claims at the end of the shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts a future that runs until it is dropped, such as the reload of the settings.
pub(crate) type BackgroundTask = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Background worker that must run next to the webhooks; without it they respond with 503.
///
/// ```no_run
/// use replyhook::{App, Echo};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let (webhooks, worker) = App::builder().handler(Echo).build()?.into_parts();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// tokio::spawn(async move { axum::serve(listener, webhooks).await });
/// let is_done = worker.run(async { let _ = tokio::signal::ctrl_c().await; }).await?;
/// println!("{}", if is_done { "all work is finished" } else { "the next start resumes the unfinished work" });
/// # Ok(()) }
/// ```
pub struct Worker {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_url: String,
    pub(crate) is_open: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) outbox: Arc<OutboxWorker>,
    pub(crate) cancellation: ScheduledCancellation,
    /// `None` unless `handler.events_url` is set.
    pub(crate) events: Option<Arc<EventWorker>>,
    /// Further background task, which reloads the settings and the rules file.
    pub(crate) reload: BackgroundTask,
    /// `store.retention_days` and `store.body_retention_days`.
    pub(crate) retention: (Duration, Duration),
}

impl Worker {
    /// Runs until `shutdown` completes, and then shuts down gracefully.
    ///
    /// Opens the store first, unless [`open`](Self::open) has done so; until then the webhooks respond with 503. After
    /// `shutdown`, new messages get 503. Handlers in progress have `server.shutdown_timeout_s` to finish. In the same
    /// time, fallback replies that were sent during a store outage are written to the store. Returns whether all of
    /// this was finished in time.
    ///
    /// # Errors
    /// [`AppError`] if the store cannot be opened, its disk fails, or a background task has failed three times within a
    /// minute.
    pub fn run<S>(self, shutdown: S) -> impl Future<Output = Result<bool, AppError>> + Send
    where
        S: Future<Output = ()> + Send,
    {
        self.run_with_server(shutdown, std::future::ready(()), || ())
    }

    /// Same as [`run`](Self::run) for a caller whose server handles requests until `requests_done` completes. Calls
    /// `on_failure` when a background task has failed too often, before the shutdown that this causes.
    // The stage is set in the call and not at the first poll of the future: a request or a signal may come before that.
    pub(crate) fn run_with_server<S, A>(
        mut self,
        shutdown: S,
        requests_done: A,
        on_failure: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<bool, AppError>> + Send
    where
        S: Future<Output = ()> + Send,
        A: Future<Output = ()> + Send,
    {
        self.lifecycle.set(if self.is_open {
            Stage::Running
        } else {
            Stage::Opening
        });
        // Created outside the future, so that the stage becomes `Ended` even if the future is dropped without being
        // polled.
        let end_guard = self.lifecycle.end_on_drop();
        async move {
            // Moved into the future, so that its end, an error, a panic and its drop all run the guard.
            let _end_guard = end_guard;
            self.open().await?;
            self.lifecycle.set(Stage::Running);
            let failed = match self.run_tasks(shutdown).await {
                RunEnd::Shutdown => None,
                RunEnd::Task(failed) => Some(failed),
                // No drain: nothing that is in progress could be saved.
                RunEnd::Disk => {
                    self.dispatcher.outage.log_unflushed();
                    return Err(AppError::disk(&self.store_url));
                }
            };
            self.lifecycle.set(Stage::Draining);
            if failed.is_some() {
                on_failure();
            }
            let drained =
                tokio::time::timeout(self.shutdown_timeout, self.drain(requests_done)).await;
            // Logs the SIDs whose replies could not be written, whether or not the timeout passed.
            let has_unflushed = self.dispatcher.outage.log_unflushed();
            // Release the claims, so that other servers need not wait for the lease of this one to expire. Not before
            // the drain, whose tasks still write under their claims.
            let closed = tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()).await;
            if !matches!(closed, Ok(Ok(()))) {
                tracing::warn!(
                    "could not release claims on shutdown because the store is unavailable; on PostgreSQL they expire \
                     with the lease (15 s)"
                );
            }
            match failed {
                Some(TaskFailed(task)) => Err(AppError::task(task)),
                None => Ok(drained.is_ok() && !has_unflushed),
            }
        }
    }

    /// Runs all background tasks until `shutdown`, or until one of them or the disk has failed.
    async fn run_tasks(&self, shutdown: impl Future<Output = ()>) -> RunEnd {
        let supervisor = Supervisor::new(self.lifecycle.clone(), self.metrics.clone());
        let task_failed = async {
            // Not spawned: the tasks are dropped together at the end of `run_tasks`.
            tokio::select! {
                failed = supervisor.run("stats", || self.update_stats()) => failed,
                failed = supervisor.run("traffic_log", || self.log_traffic()) => failed,
                failed = supervisor.run("store_check", || self.check_store()) => failed,
                failed = supervisor.run("expiry", || self.expire_content()) => failed,
                failed = supervisor.run("backlog", || Backlog::new(self.dispatcher.clone()).run()) => failed,
                failed = supervisor.run("outbox", || self.outbox.clone().run()) => failed,
                failed = supervisor.run("cancel_scheduled", || self.cancellation.run()) => failed,
                failed = supervisor.run("events", || self.deliver_events()) => failed,
                failed = supervisor.run("reload", || (self.reload)()) => failed,
            }
        };
        tokio::select! {
            () = shutdown => RunEnd::Shutdown,
            () = self.store.failed() => RunEnd::Disk,
            failed = task_failed => RunEnd::Task(failed),
        }
    }

    /// Waits for the requests and tasks in progress, and writes all unflushed replies to the store.
    async fn drain(&self, requests_done: impl Future<Output = ()>) {
        let finished = async {
            // First the requests: one that is still being read may spawn a task.
            requests_done.await;
            // `wait` completes only after `close`. A closed tracker still accepts tasks and waits for them.
            self.tasks.close();
            self.tasks.wait().await;
        };
        // Flush at the same time: the backlog loop, which normally flushes, has ended with `run_tasks`.
        tokio::select! {
            () = finished => {}
            () = self.dispatcher.outage.keep_flushing() => {}
        }
        // Once more: the last requests may have left replies that `keep_flushing` has not written.
        self.dispatcher.outage.flush_all().await;
    }

    /// Opens the store before [`run`](Self::run), so that a problem with it is reported before the server accepts
    /// requests.
    ///
    /// # Errors
    /// [`AppError`] if the store cannot be opened.
    pub async fn open(&mut self) -> Result<(), AppError> {
        if !self.is_open {
            let opened = self.store.open(Access::Owner).await;
            opened.map_err(|error| AppError::store(&self.store_url, &error))?;
            self.is_open = true;
        }
        Ok(())
    }

    async fn log_traffic(&self) {
        let mut log = TrafficLog::new(&self.metrics);
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            log.log_minute();
        }
    }

    async fn update_stats(&self) {
        let mut interval = tokio::time::interval(STATS_INTERVAL);
        let health = &self.dispatcher.monitor.report.health;
        loop {
            interval.tick().await;
            let outbox = self.store.outbox_stats().await;
            if let Some(stats) = health.read(outbox) {
                self.metrics.outbox(&stats, self.clock.now());
            }
            let backlog = self.store.backlog_stats().await;
            if let Some(backlog) = health.read(backlog) {
                self.metrics.messages(&backlog, self.clock.now());
            }
            if self.events.is_some() {
                let events = self.store.event_stats().await;
                if let Some(stats) = health.read(events) {
                    self.metrics.events(&stats, self.clock.now());
                }
            }
        }
    }

    async fn deliver_events(&self) {
        match &self.events {
            Some(events) => events.clone().run().await,
            None => std::future::pending().await,
        }
    }

    async fn check_store(&self) {
        let mut interval = tokio::time::interval(CHECK_INTERVAL);
        // A slow check must not cause a burst of checks that make up for the missed ticks.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.dispatcher.monitor.check().await;
        }
    }

    async fn expire_content(&self) {
        loop {
            // Real time and not the clock's: the pause depends on how long the deletion blocked the store.
            let started = Instant::now();
            let (content, texts) = self.retention;
            let retention = Retention::new(content, texts, self.clock.now());
            let has_more_links = self.store.expire_links(self.clock.now()).await;
            let has_more_links = has_more_links.unwrap_or_else(|error| {
                self.dispatcher
                    .monitor
                    .report
                    .record_failure("expire_links", &error);
                false
            });
            let expired = self.store.expire(retention).await;
            let expired = expired.unwrap_or_else(|error| {
                self.dispatcher
                    .monitor
                    .report
                    .record_failure("expire", &error);
                ExpiryReport::default()
            });
            report_expired(&self.metrics, &expired.unanswered);
            // One step deletes a limited number of rows. While more is left, pause so that messages can be written in
            // between.
            let pause = if expired.has_more || has_more_links {
                ExpiryReport::pause_after(started.elapsed())
            } else {
                EXPIRY_INTERVAL
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reason for the end of the background tasks.
enum RunEnd {
    Shutdown,
    Task(TaskFailed),
    Disk,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
