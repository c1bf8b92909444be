//! Periodic check of the store.

use super::dispatcher::Dispatcher;

impl Dispatcher {
    /// Checks the store with the timeout of a message, and records the outcome in its health.
    pub(crate) async fn check_store(&self) {
        let health = &self.store_report.health;
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
