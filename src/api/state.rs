//! [`Api`]: state of the HTTP API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::senders::AllowedSenders;
use super::token::AccessToken;
use crate::clock::Clock;
use crate::forward::UnknownKeyLog;
use crate::outbound::OutboundClient;
use crate::reloadable::Reloadable;
use crate::signature::PublicUrl;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::twilio::Keyring;

/// Maximum number of requests in progress. More get 503, so that `/readyz` and `/metrics` always get a connection.
const MAX_IN_FLIGHT: usize = 32;

/// State that the endpoints of the API share.
pub(crate) struct Api {
    pub(super) parts: ApiParts,
    pub(super) in_flight: Semaphore,
    pub(super) unknown_keys: UnknownKeyLog,
}

/// Parts of the app that the API uses.
pub(crate) struct ApiParts {
    pub(crate) token: AccessToken,
    pub(crate) senders: AllowedSenders,
    pub(crate) outbound: OutboundClient,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) keyring: Reloadable<Keyring>,
    /// Handoffs to this server would loop.
    pub(crate) public_url: PublicUrl,
    /// Time after which a handoff ends that names no other.
    pub(crate) handoff_ttl: Duration,
}

impl Api {
    pub(crate) fn new(parts: ApiParts) -> Self {
        Self {
            parts,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            unknown_keys: UnknownKeyLog::default(),
        }
    }

    /// Logs fields that are ignored, each once.
    pub(super) fn log_unknown_fields(&self, fields: BTreeSet<String>) {
        for key in self.unknown_keys.record_new(fields) {
            tracing::warn!(
                key,
                "ignored an unknown field of a request to the API; logged once per field"
            );
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}
