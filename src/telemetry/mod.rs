//! Telemetry for operators: [`metrics`], and logs (feature `server`).
//!
//! Neither contains a phone number, a text, a name, a token or a signature. A successful request writes no line at the
//! default log level; metrics count it.

mod background;
#[cfg(feature = "server")]
pub(crate) mod logs;
pub mod metrics;
#[cfg(feature = "otel")]
mod otel;
mod store_health;
mod store_report;
mod throttle;

pub(crate) use background::catch_panic;
pub(crate) use store_health::{StoreFailure, StoreHealth};
pub(crate) use store_report::StoreReport;
pub(crate) use throttle::Throttle;

/// Layer of the tracing subscriber: the log output, or the export of spans.
#[cfg(feature = "server")]
type BoxedLayer = Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>;
