//! Log output to standard error: readable on a terminal, JSON elsewhere.
//!
//! A panic is logged with its location but without its text, which may quote a user's message.

mod boxed_layer;
#[cfg(feature = "otel")]
mod otel;

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use self::boxed_layer::BoxedLayer;
use crate::config::{LogFormat, LogSettings, Settings};

/// Installs logs, traces and the panic hook, unless the process already has a tracing subscriber.
///
/// Keep the returned guard until the end of the process.
pub(crate) fn install(settings: &Settings) -> TelemetryGuard {
    let guard = install_subscriber(settings);
    if guard.filter.is_some() {
        std::panic::set_hook(Box::new(|panic| {
            // The default hook prints the panic's text, so replace it.
            let location = panic.location().map(ToString::to_string);
            tracing::error!(
                location,
                "panicked; the text is not logged because it may quote a message"
            );
        }));
    }
    guard
}

/// Installs logs and traces, unless the process already has a tracing subscriber.
pub(crate) fn install_subscriber(settings: &Settings) -> TelemetryGuard {
    let (logs, filter) = log_layer(&settings.log);
    #[cfg(feature = "otel")]
    let (spans, traces) = otel::layer(&settings.telemetry).unzip();
    #[cfg(not(feature = "otel"))]
    let spans = None;
    let layers: Vec<BoxedLayer> = std::iter::once(logs).chain(spans).collect();
    let registry = tracing_subscriber::registry().with(layers);
    // An application that embeds the crate and has set up logging keeps its subscriber and its panic hook.
    let is_installed = registry.try_init().is_ok();
    TelemetryGuard {
        filter: is_installed.then_some(filter),
        #[cfg(feature = "otel")]
        traces,
    }
}

fn log_layer(settings: &LogSettings) -> (BoxedLayer, FilterHandle) {
    let is_pretty = match settings.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&settings.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer: BoxedLayer = if is_pretty {
        layer
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter)
            .boxed()
    } else {
        // Fields at the top level, so that log systems find `message_sid` and others without a prefix.
        layer.json().flatten_event(true).with_filter(filter).boxed()
    };
    (layer, FilterHandle(handle))
}

/// Handle that replaces the level of the log.
#[derive(Clone)]
pub(crate) struct FilterHandle(reload::Handle<EnvFilter, Registry>);

impl FilterHandle {
    /// Sets a level, or directives for single targets, as in `log.level`.
    pub(crate) fn set_level(&self, level: &str) {
        // Fails only if the subscriber is gone, which then writes no log either.
        let _ = self.0.reload(EnvFilter::new(level));
    }
}

/// Guard that exports the remaining traces when it is dropped.
pub(crate) struct TelemetryGuard {
    /// `None` if the process had a subscriber already.
    filter: Option<FilterHandle>,
    #[cfg(feature = "otel")]
    traces: Option<otel::Traces>,
}

impl TelemetryGuard {
    /// Returns the handle of the log's level, unless the log is that of the program.
    pub(crate) fn filter(&self) -> Option<FilterHandle> {
        self.filter.clone()
    }
}

// Without the feature `otel` the guard is empty, but callers drop it all the same.
impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        drop(self.traces.take());
    }
}
