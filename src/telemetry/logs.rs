//! Log lines: pretty on a terminal, JSON elsewhere, to standard error.
//!
//! A panic is logged with its place and without its text, which may quote what a user wrote.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogFormat, LogSettings, Settings};

/// Whether directives can be read.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(level)
        .map_err(|error| error.to_string())
}

/// Installs logs and the panic hook, unless the process has a subscriber of its own. What it returns flushes traces when
/// it is dropped.
pub(crate) fn install(settings: &Settings) -> Option<Flush> {
    let lines = lines(&settings.log);
    #[cfg(feature = "otel")]
    let (registry, flush) = {
        let (spans, flush) = super::otel::layer(&settings.telemetry);
        (
            tracing_subscriber::registry().with(
                vec![Some(lines), spans]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>(),
            ),
            flush,
        )
    };
    #[cfg(not(feature = "otel"))]
    let (registry, flush) = (tracing_subscriber::registry().with(lines), Flush {});
    registry.try_init().ok()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            place,
            "a panic; its text is not logged, since it may quote a message"
        );
    }));
    Some(flush)
}

fn lines(settings: &LogSettings) -> Box<dyn Layer<Registry> + Send + Sync> {
    let pretty = match settings.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let filter = filter(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if pretty {
        lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter)
            .boxed()
    } else {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    }
}

/// Sends what traces are still waiting when it is dropped.
#[derive(Debug)]
pub(crate) struct Flush {
    #[cfg(feature = "otel")]
    pub(super) provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

#[cfg(feature = "otel")]
impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A receiver that is gone must not hold up the end.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}
