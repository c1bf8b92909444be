//! [`DeliveryParts`]: the parts of the server that delivery uses.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::health::RestHealth;
use super::policy::DeliveryPolicy;
use super::route::ApiRoutes;
use crate::clock::Clock;
use crate::reloadable::Reloadable;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{OptOutLog, StoreReport};
use crate::twilio::Keyring;

/// Function that gets the ID of a message that was not sent, and the reason.
pub(crate) type UnsentHook = Arc<dyn Fn(i64, String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Arguments of [`OutboxWorker::new`](super::OutboxWorker::new) and
/// [`ScheduledCancellation::new`](super::ScheduledCancellation::new).
pub(crate) struct DeliveryParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_report: Arc<StoreReport>,
    pub(crate) routes: Arc<ApiRoutes>,
    pub(crate) keyring: Reloadable<Keyring>,
    pub(crate) health: Arc<RestHealth>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: DeliveryPolicy,
    pub(crate) tasks: TaskTracker,
    /// Notified when a message was queued.
    pub(crate) outbox: Arc<Notify>,
    /// Notified when a user has opted out.
    pub(crate) opted_out: Arc<Notify>,
    pub(crate) opt_out_log: Arc<OptOutLog>,
    pub(crate) on_unsent: Option<UnsentHook>,
}
