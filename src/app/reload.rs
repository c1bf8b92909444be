//! Reload of the settings on request, and of the rules file when it changes (hot reload).

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use super::confirmations::{ConfirmationTexts, consent_rules};
use super::rules_file::RulesSource;
use super::snapshot::{CurrentSnapshot, Snapshot};
use super::tunnel::Tunnel;
use crate::app_error::AppError;
use crate::config::{ChangedKeys, LOG_LEVEL, Loaded, SettingValues, Settings, Sources, Warning};
use crate::events::DeliveryStatus;
use crate::lock::IgnorePoison;
use crate::telemetry::metrics::Metrics;
use crate::worker::BackgroundTask;

/// Maximum number of keys that one log line names. There may be thousands of accounts.
const MAX_LOGGED_KEYS: usize = 20;

/// A callback for each reload of the rules file, with the error if the new rules are rejected.
pub(super) type ReloadHook = Arc<dyn Fn(Result<(), &str>) + Send + Sync>;

/// Asks a running app to read its settings again, as [`App::run`](crate::App::run) does on SIGHUP.
///
/// The file, the secrets in files, and the rules file are read again; environment variables are those of the start. The
/// log has the result. Requests during a reload lead to one more after it.
///
/// ```no_run
/// use tokio::signal::unix::{SignalKind, signal};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let app = replyhook::App::builder().build()?;
/// let reload = app.reload_handle();
/// let (webhooks, worker) = app.into_parts();
/// let mut hangup = signal(SignalKind::hangup())?;
/// tokio::spawn(async move {
///     while hangup.recv().await.is_some() {
///         reload.request();
///     }
/// });
/// # Ok(()) }
/// ```
// `Notify` stores one request that arrives before the worker runs or during a reload.
#[derive(Clone, Default)]
pub struct ReloadHandle(Arc<Notify>);

impl ReloadHandle {
    /// Requests a reload, which the app's [`Worker`](crate::Worker) makes. Does not wait for it.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

impl fmt::Debug for ReloadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadHandle").finish_non_exhaustive()
    }
}

/// Sets the level of the process's log.
type SetLogLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Connection of [`App::run`](crate::App::run) to the [`Reloader`].
#[derive(Clone, Default)]
pub(super) struct ReloadControl {
    pub(super) requests: ReloadHandle,
    /// Empty unless [`App::run`](crate::App::run) has installed the log.
    pub(super) log_level: Arc<OnceLock<SetLogLevel>>,
}

/// Parts of an app that its reload needs.
pub(super) struct Reloader {
    sources: Sources,
    tunnel: Option<Tunnel>,
    pub(super) snapshot: CurrentSnapshot,
    rules: RulesSource,
    metrics: Arc<Metrics>,
    pub(super) control: ReloadControl,
    on_rules_reload: Option<ReloadHook>,
    /// State of the delivery of events, which a reload resumes.
    pub(super) event_status: Option<Arc<DeliveryStatus>>,
    applied: Mutex<AppliedSettings>,
}

/// The settings that are in use.
struct AppliedSettings {
    settings: Settings,
    values: SettingValues,
    /// Warnings that were logged.
    warnings: Vec<Warning>,
    /// True if a settings file was read.
    has_file: bool,
}

/// Effects of a reload, for the log.
struct ReloadReport {
    changed: ChangedKeys,
    new_warnings: Vec<Warning>,
}

impl Reloader {
    /// Creates the parts that can be replaced from the settings of the start.
    ///
    /// # Errors
    /// [`AppError`] if a token is not usable as a signing key, or a confirmation is too long.
    pub(super) fn new(
        sources: Sources,
        tunnel: Option<&Tunnel>,
        loaded: &Loaded,
        rules: RulesSource,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let consent = consent_rules(&loaded.settings, &rules.texts())?;
        let snapshot = Snapshot::new(&loaded.settings, tunnel, consent)?;
        Ok(Self {
            sources,
            tunnel: tunnel.cloned(),
            snapshot: CurrentSnapshot::new(snapshot),
            rules,
            metrics: metrics.clone(),
            control: ReloadControl::default(),
            on_rules_reload: None,
            event_status: None,
            applied: Mutex::new(AppliedSettings {
                settings: loaded.settings.clone(),
                values: loaded.values.clone(),
                warnings: loaded.warnings.clone(),
                has_file: loaded.has_file,
            }),
        })
    }

    pub(super) fn into_task(self, on_rules_reload: Option<ReloadHook>) -> BackgroundTask {
        let reloader = Arc::new(Self {
            on_rules_reload,
            ..self
        });
        Arc::new(move || Box::pin(reloader.clone().run()))
    }

    /// Reloads the settings at each request, and the rules file when it changes, until it is dropped.
    // One loop for both: each replaces the consent rules, and neither may undo what the other has just read.
    async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.control.requests.0.notified() => self.clone().reload_settings().await,
                () = self.rules.wait_for_poll() => self.poll_rules().await,
            }
        }
    }

    async fn poll_rules(&self) {
        let Some((file, reloaded)) = self.rules.reload_if_changed().await else {
            return;
        };
        let outcome = reloaded.and_then(|texts| self.apply_texts(&texts));
        match &outcome {
            Ok(()) => tracing::info!(%file, "reloaded rules"),
            Err(error) => {
                tracing::error!(%file, %error, "could not reload rules; the previous rules stay in use");
            }
        }
        if let Some(on_reload) = &self.on_rules_reload {
            match &outcome {
                Ok(()) => on_reload(Ok(())),
                Err(error) => on_reload(Err(error)),
            }
        }
    }

    /// Replaces the confirmations of opt-outs, which the dispatcher sends and not the handler.
    fn apply_texts(&self, texts: &ConfirmationTexts) -> Result<(), String> {
        let applied = self.applied.lock().ignore_poison();
        let consent = consent_rules(&applied.settings, texts).map_err(|error| error.to_string())?;
        self.snapshot.replace_consent(consent);
        Ok(())
    }

    async fn reload_settings(self: Arc<Self>) {
        let reloader = self.clone();
        // Reading files blocks, and so does preparing the keys of thousands of accounts.
        let report = tokio::task::spawn_blocking(move || reloader.read_and_apply()).await;
        let report = report.unwrap_or_else(|_| {
            // The panic hook has logged its location. Its text could quote a value.
            Err(AppError::config(&"a panic while they were read"))
        });
        self.metrics.reload(report.is_ok());
        match report {
            Err(error) => {
                tracing::error!(%error, "could not reload the settings; the previous settings stay in use");
            }
            Ok(report) => {
                if let Some(status) = &self.event_status {
                    status.resume();
                    self.metrics.set_events_stopped(false);
                }
                for warning in &report.new_warnings {
                    tracing::warn!("{warning}");
                }
                let ChangedKeys {
                    reloaded,
                    after_restart,
                } = &report.changed;
                if !after_restart.is_empty() {
                    tracing::warn!(
                        "some settings have changed that a reload does not apply; takes effect after a restart: {}",
                        key_list(after_restart)
                    );
                }
                if reloaded.is_empty() {
                    tracing::info!("reloaded the settings; no change to apply");
                } else {
                    tracing::info!("reloaded the settings; applied: {}", key_list(reloaded));
                }
            }
        }
    }

    /// Reads and validates everything, and then applies it. An error changes nothing.
    fn read_and_apply(&self) -> Result<ReloadReport, AppError> {
        let mut applied = self.applied.lock().ignore_poison();
        // The default file is optional at the start only. A file that vanishes while the server runs, as when a volume is
        // unmounted or an editor replaces it, is a fault, and not an empty file that removes accounts and keywords.
        let loaded = if applied.has_file {
            Settings::load(&self.sources.with_required_file())
        } else {
            Settings::load(&self.sources)
        };
        let loaded = loaded.map_err(|problems| AppError::config(&problems))?;
        let mut changed = applied.values.changes(&loaded.values);
        let settings = applied.settings.with_reloaded(&loaded.settings);
        let rules = self.rules.prepare(&loaded.settings)?;
        let consent = consent_rules(&settings, &rules.texts)?;
        let snapshot = Snapshot::new(&settings, self.tunnel.as_ref(), consent)?;
        // Nothing fails from here on.
        self.snapshot.replace(snapshot);
        if self.rules.activate(rules) {
            changed.reloaded.push("the rules file".to_owned());
        }
        match self.control.log_level.get() {
            Some(set_level) if settings.log.level != applied.settings.log.level => {
                set_level(&settings.log.level);
            }
            Some(_) => {}
            // The embedding program installed the log, so this app cannot set its level.
            None => changed.reloaded.retain(|key| key != LOG_LEVEL),
        }
        let warnings = loaded.warnings.iter();
        let new_warnings = warnings.filter(|warning| !applied.warnings.contains(warning));
        let report = ReloadReport {
            changed,
            new_warnings: new_warnings.cloned().collect(),
        };
        applied.settings = settings;
        applied.values.apply_reloaded(&loaded.values);
        applied.warnings = loaded.warnings;
        applied.has_file = loaded.has_file;
        Ok(report)
    }
}

/// Joins keys, up to [`MAX_LOGGED_KEYS`].
fn key_list(keys: &[String]) -> String {
    let shown = &keys[..keys.len().min(MAX_LOGGED_KEYS)];
    match keys.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
