//! The regular check of the store.

use super::Dispatcher;

impl Dispatcher {
    /// Checks the store as a message would find it now, and records the outcome in its health.
    pub(crate) async fn check_store(&self) {
        let health = &self.store_report.health;
        let kept = health.number_kept();
        match tokio::time::timeout(self.store.patience(), self.store.check()).await {
            Ok(Ok(())) => health.check_passed(),
            Ok(Err(error)) => health.check_failed(&error, kept),
            Err(_) => health.check_failed(&"it takes too long", kept),
        }
    }
}
