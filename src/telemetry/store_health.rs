//! [`StoreHealth`]: tracks whether the store accepts messages, by the results of messages and of a periodic check.
//!
//! The store is not ready after a failed check, or after several messages in a row failed. Two successful checks in a
//! row make it ready again. After corruption it stays not ready until a restart: data that was read cannot be trusted.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::metrics::Metrics;
use crate::lock::IgnorePoison;
use crate::sid::MessageSid;
use crate::store::{StoreError, StoreErrorKind};

// Number of different messages that fail in a row, with no success between them, after which the store is not ready.
// One message alone may always fail, and Twilio delivers it again.
const MAX_FAILED_MESSAGES: usize = 3;
// Number of successful checks in a row after which the store is ready again. One success between failures is not
// enough.
const MIN_PASSED_CHECKS: u32 = 2;

/// Failure of a store operation.
pub(crate) trait StoreFailure: Display {
    /// Returns true if the database itself is corrupt.
    fn is_corruption(&self) -> bool;
}

impl StoreFailure for StoreError {
    fn is_corruption(&self) -> bool {
        self.kind() == StoreErrorKind::Corrupt
    }
}

// The text of an operation that did not end in time.
impl StoreFailure for &'static str {
    fn is_corruption(&self) -> bool {
        false
    }
}

/// Health of the store, shared by all its users.
pub(crate) struct StoreHealth {
    metrics: Arc<Metrics>,
    /// Number of messages stored in time.
    // Relaxed, like `has_recent_rejections`: no other data depends on the order, and health may change one message
    // later.
    stored: AtomicU64,
    /// A message has failed since the last one that was stored. Lets `record_stored` skip the lock in the usual case.
    has_recent_rejections: AtomicBool,
    state: Mutex<HealthState>,
}

#[derive(Default)]
struct HealthState {
    /// Corruption of the database. Never cleared.
    corruption: Option<String>,
    /// Reason why the store is not ready.
    failure: Option<String>,
    /// Number of successful checks since `failure` was set.
    passes: u32,
    /// Messages that failed since the last one that was stored.
    rejected: Vec<MessageSid>,
    /// Text of the last failed operation.
    last_failure: String,
}

impl StoreHealth {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            stored: AtomicU64::new(0),
            has_recent_rejections: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Returns the reason why the store is not ready, if it is not.
    pub(crate) fn failure(&self) -> Option<String> {
        let state = self.state();
        if let Some(corruption) = &state.corruption {
            return Some(corruption.clone());
        }
        let failure = state.failure.as_ref()?;
        Some(match state.passes {
            0 => failure.clone(),
            passes => {
                format!(
                    "{failure} (since then {passes} of {MIN_PASSED_CHECKS} checks in a row succeeded)"
                )
            }
        })
    }

    /// Records a message that was stored while its request waited.
    pub(crate) fn record_stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
        if self.has_recent_rejections.load(Ordering::Relaxed) {
            // Held over both lines: a failure that `record_rejected` adds in between would not be cleared by later
            // successes.
            let mut state = self.state();
            state.rejected.clear();
            self.has_recent_rejections.store(false, Ordering::Relaxed);
        }
    }

    /// Records a message that could not be stored while its request waited. Call it after
    /// [`record_failure`](Self::record_failure).
    pub(crate) fn record_rejected(&self, sid: MessageSid) {
        let mut state = self.state();
        // A redelivery counts once: a single message that always fails proves nothing about the store.
        if !state.rejected.contains(&sid) {
            state.rejected.push(sid);
        }
        self.has_recent_rejections.store(true, Ordering::Relaxed);
        if state.rejected.len() >= MAX_FAILED_MESSAGES {
            // The next run starts at zero. It also bounds the list.
            state.rejected.clear();
            let failure = format!(
                "{MAX_FAILED_MESSAGES} messages in a row could not be stored: {}",
                state.last_failure
            );
            self.set_not_ready(&mut state, failure);
        }
    }

    /// Records a failed operation. Only corruption makes the store not ready immediately.
    pub(crate) fn record_failure(&self, failure: &dyn StoreFailure) {
        let mut state = self.state();
        state.last_failure = failure.to_string();
        if failure.is_corruption() && state.corruption.is_none() {
            let corruption = format!("{failure}; not ready until a restart");
            tracing::error!("not ready: {corruption}");
            state.corruption = Some(corruption);
            self.metrics.store_up.set(0.0);
        }
    }

    /// Returns the value of a read for statistics. A failure matters only if it shows corruption.
    pub(crate) fn read<T>(&self, outcome: Result<T, StoreError>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                if error.is_corruption() {
                    self.record_failure(error);
                }
            })
            .ok()
    }

    /// Returns the number of messages stored so far, for [`check_failed`](Self::check_failed).
    pub(crate) fn stored_count(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Records a check that succeeded.
    pub(crate) fn check_passed(&self) {
        let mut state = self.state();
        if state.failure.is_some() {
            state.passes += 1;
            if state.passes >= MIN_PASSED_CHECKS {
                state.failure = None;
                tracing::info!("store is ready again");
            }
        }
        // Also the first success after the start, when the gauge is 0.
        let is_ready = state.failure.is_none() && state.corruption.is_none();
        self.metrics.store_up.set(f64::from(u8::from(is_ready)));
    }

    /// Records a failed check. `stored_before` is the number of messages stored before it.
    ///
    /// If messages were stored during the check, the store is only slow under load, and stays ready.
    pub(crate) fn check_failed(&self, failure: &dyn StoreFailure, stored_before: u64) {
        self.metrics.store_error("check");
        self.record_failure(failure);
        if self.stored.load(Ordering::Relaxed) == stored_before {
            self.set_not_ready(&mut self.state(), failure.to_string());
        }
    }

    fn set_not_ready(&self, state: &mut HealthState, failure: String) {
        // Log the change only, not each further failure.
        if state.failure.is_none() {
            tracing::error!("not ready: {failure}");
        }
        state.failure = Some(failure);
        state.passes = 0;
        self.metrics.store_up.set(0.0);
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        // A poisoned lock is usable: each field is valid on its own.
        self.state.lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid(number: u64) -> MessageSid {
        format!("SM{number:032x}").parse().unwrap()
    }

    fn health() -> StoreHealth {
        StoreHealth::new(Arc::new(Metrics::new()))
    }

    fn reject(health: &StoreHealth, number: u64) {
        health.record_failure(&"it takes too long");
        health.record_rejected(sid(number));
    }

    // A message that always fails does not show that the store is broken.
    #[test]
    fn two_failing_messages_keep_store_ready() {
        let health = health();
        for _ in 0..100 {
            reject(&health, 1);
        }
        reject(&health, 2);
        assert_eq!(health.failure(), None);
        health.record_stored();
        reject(&health, 3);
        reject(&health, 4);
        assert_eq!(health.failure(), None);
    }

    #[test]
    fn three_failing_messages_need_two_passed_checks() {
        let health = health();
        for number in 1..=3 {
            reject(&health, number);
        }
        assert!(health.failure().unwrap().contains("it takes too long"));
        health.check_passed();
        assert!(health.failure().is_some());
        health.check_failed(&"it takes too long", 0);
        health.check_passed();
        assert!(health.failure().is_some());
        health.check_passed();
        assert_eq!(health.failure(), None);
    }

    #[test]
    fn failed_check_after_stored_message_keeps_store_ready() {
        let health = health();
        health.record_stored();
        health.check_failed(&"it takes too long", 0);
        assert_eq!(health.failure(), None);
        health.check_failed(&"it takes too long", 1);
        assert!(health.failure().is_some());
    }

    #[test]
    fn store_corruption_lasts_until_restart() {
        let health = health();
        health.record_failure(&StoreError::new(StoreErrorKind::Corrupt));
        for _ in 0..5 {
            health.check_passed();
        }
        assert!(health.failure().unwrap().contains("until a restart"));
        assert!(health.metrics.render().contains("replyhook_store_up 0"));
    }
}
