//! Telemetry for operators: [`metrics`], and logs (feature `server`).
//!
//! Neither contains a phone number, a text, a name, a token or a signature. A successful request writes no line at the
//! default log level; metrics count it.

#[cfg(feature = "server")]
pub(crate) mod logs;
pub mod metrics;
#[cfg(feature = "otel")]
mod otel;
mod store_health;
mod store_report;
mod throttle;

pub(crate) use store_health::{StoreFailure, StoreHealth};
pub(crate) use store_report::StoreReport;
pub(crate) use throttle::Throttle;
