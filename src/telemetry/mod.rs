//! Telemetry for operators: [`metrics`]. `src/logs` sets up logs and traces.
//!
//! Neither of these contains a phone number, a text, a name, a token or a signature. A successful request writes no line at the
//! default log level; metrics count it.

mod background;
pub mod metrics;
mod opt_out_log;
mod outcome;
mod store_health;
mod store_report;
mod throttle;
mod traffic_log;

pub(crate) use background::catch_panic;
pub(crate) use opt_out_log::OptOutLog;
pub(crate) use store_health::{StoreFailure, StoreHealth};
pub(crate) use store_report::StoreReport;
pub(crate) use throttle::Throttle;
pub(crate) use traffic_log::TrafficLog;
