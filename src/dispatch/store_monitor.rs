//! [`StoreMonitor`]: timeouts, failures and checks of the store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::lock::IgnorePoison;
use crate::store::{Store, StoreError};
use crate::telemetry::{StoreFailure, StoreReport};

/// Runs operations of the store with its timeout, and records their failures.
pub(crate) struct StoreMonitor {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pub(crate) report: StoreReport,
    /// Time of the last failure, by [`Clock::monotonic`].
    failed_at: Mutex<Duration>,
}

impl StoreMonitor {
    /// Creates the monitor of a server that starts now. The start counts as a failure: this process resumes messages of
    /// other servers, which may still buffer replies to them.
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, report: StoreReport) -> Self {
        Self {
            failed_at: Mutex::new(clock.monotonic()),
            store,
            clock,
            report,
        }
    }

    /// Runs an operation with the store's timeout, and reports a failure.
    pub(super) async fn timed<T>(
        &self,
        step: &'static str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ()> {
        match tokio::time::timeout(self.store.operation_timeout(), operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.report_failure(step, &error);
                Err(())
            }
            Err(_) => {
                self.report_failure(step, &"timed out");
                Err(())
            }
        }
    }

    /// Reports a failed operation.
    pub(super) fn report_failure(&self, step: &'static str, failure: &dyn StoreFailure) {
        let now = self.clock.monotonic();
        let mut failed_at = self.failed_at.lock().ignore_poison();
        // Concurrent failures may come in any order.
        *failed_at = now.max(*failed_at);
        drop(failed_at);
        self.report.record_failure(step, failure);
    }

    /// Returns the time of the last failure, by [`Clock::monotonic`].
    pub(super) fn last_failure(&self) -> Duration {
        *self.failed_at.lock().ignore_poison()
    }

    /// Checks the store with the timeout of a message, and records the outcome in its health.
    pub(crate) async fn check(&self) {
        let health = &self.report.health;
        // Read before the check: if messages are stored while the check fails, the store is under
        // load and not unavailable.
        let stored_before = health.stored_count();
        match tokio::time::timeout(self.store.operation_timeout(), self.store.check()).await {
            Ok(Ok(())) => health.check_passed(),
            Ok(Err(error)) => health.check_failed(&error, stored_before),
            Err(_) => health.check_failed(&"timed out", stored_before),
        }
    }
}
