//! Log lines: pretty on a terminal, JSON elsewhere, to standard error.
//!
//! A panic is logged with its place and without its text, which may quote what a user wrote.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogFormat, LogSettings, Settings};

/// Installs logs and the panic hook, unless the process has a subscriber of its own.
pub(crate) fn install(settings: &Settings) -> Flush {
    let lines = lines(&settings.log);
    #[cfg(feature = "otel")]
    let (spans, traces) = super::otel::layer(&settings.telemetry).unzip();
    #[cfg(not(feature = "otel"))]
    let spans = None;
    let layers: Vec<BoxedLayer> = std::iter::once(lines).chain(spans).collect();
    let registry = tracing_subscriber::registry().with(layers);
    if registry.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            tracing::error!(
                place,
                "a panic; its text is not logged, since it may quote a message"
            );
        }));
    }
    Flush {
        #[cfg(feature = "otel")]
        traces,
    }
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn lines(settings: &LogSettings) -> BoxedLayer {
    let pretty = match settings.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let filter = EnvFilter::new(&settings.level);
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

/// Traces that may still be waiting; dropped, they are sent.
#[derive(Debug)]
pub(crate) struct Flush {
    #[cfg(feature = "otel")]
    traces: Option<super::otel::Traces>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        drop(self.traces.take());
    }
}
