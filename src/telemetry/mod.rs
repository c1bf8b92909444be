//! What the operator sees: [`metrics`], and logs (feature `server`).
//!
//! Neither ever holds a phone number, a text, a name, a token or a signature. A request that went well writes no line
//! at the default level: metrics count it.

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
