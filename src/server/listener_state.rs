//! State shared by all connections of a listener.

use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;

use super::limits::ConnectionLimits;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// State shared by all connections of a listener.
pub(super) struct ListenerState {
    pub(super) router: Router,
    pub(super) builder: http1::Builder,
    pub(super) limits: ConnectionLimits,
    pub(super) metrics: Arc<Metrics>,
    /// Limits log lines about malformed requests, which any client can cause.
    pub(super) malformed_warnings: Throttle,
}
