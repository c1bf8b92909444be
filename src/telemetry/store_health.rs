//! Whether the store keeps messages: by what becomes of them, and by a regular check that needs no traffic.
//!
//! Not ready after a failed check, or once several messages in a row could not be kept; ready again after two successful
//! checks in a row. Damage to the database itself stays until a restart: what is read from it meanwhile cannot be trusted.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::metrics::Metrics;
use crate::sid::MessageSid;
use crate::store::{StoreError, StoreErrorKind};

/// Different messages that could not be kept, with none between them that could, after which the store is not ready. Not
/// fewer, since Twilio delivers one that fails again, and one message may fail by itself.
const RUN: usize = 3;
/// Successful checks in a row after which the store is ready again.
const PASSES: u32 = 2;

/// A step that failed.
pub(crate) trait StoreFailure: Display {
    /// True if the database itself is damaged.
    fn is_damage(&self) -> bool;
}

impl StoreFailure for StoreError {
    fn is_damage(&self) -> bool {
        self.kind() == StoreErrorKind::Corrupt
    }
}

/// One that was given up.
impl StoreFailure for &'static str {
    fn is_damage(&self) -> bool {
        false
    }
}

/// The store's health, shared by everything that uses the store.
pub(crate) struct StoreHealth {
    metrics: Arc<Metrics>,
    /// Messages that were kept in time.
    kept: AtomicU64,
    /// Whether a message has failed since the last one that was kept: tells without a lock that none has, as is usual.
    has_refused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    damage: Option<String>,
    /// Why it is not ready.
    failure: Option<String>,
    /// Successful checks since then.
    passes: u32,
    /// Messages that failed since the last one that was kept.
    refused: Vec<MessageSid>,
    /// The last failure of any step.
    last: String,
}

impl StoreHealth {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            kept: AtomicU64::new(0),
            has_refused: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Why messages cannot be kept, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        let state = self.state();
        if let Some(damage) = &state.damage {
            return Some(damage.clone());
        }
        let failure = state.failure.as_ref()?;
        Some(match state.passes {
            0 => failure.clone(),
            passes => {
                format!("{failure} (since then {passes} of {PASSES} checks in a row succeeded)")
            }
        })
    }

    /// Records a message that was kept while its request waited.
    pub(crate) fn kept(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
        if self.has_refused.load(Ordering::Relaxed) {
            self.state().refused.clear();
            self.has_refused.store(false, Ordering::Relaxed);
        }
    }

    /// Records a message that could not be kept while its request waited, after the step that failed.
    pub(crate) fn refused(&self, sid: MessageSid) {
        let mut state = self.state();
        if !state.refused.contains(&sid) {
            state.refused.push(sid);
        }
        self.has_refused.store(true, Ordering::Relaxed);
        if state.refused.len() >= RUN {
            state.refused.clear();
            let failure = format!("{RUN} messages in a row were not kept: {}", state.last);
            self.not_ready(&mut state, failure);
        }
    }

    /// Records a step that failed.
    pub(crate) fn failed(&self, failure: &dyn StoreFailure) {
        let mut state = self.state();
        state.last = failure.to_string();
        if failure.is_damage() && state.damage.is_none() {
            let damage = format!("{failure}; not ready until a restart");
            tracing::error!("not ready: {damage}");
            state.damage = Some(damage);
            self.metrics.store_ok.set(0.0);
        }
    }

    /// Records a failed read of the upkeep, which matters only where it shows damage.
    pub(crate) fn read<T>(&self, outcome: Result<T, StoreError>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                if error.is_damage() {
                    self.failed(error);
                }
            })
            .ok()
    }

    /// The number of messages that were kept so far, for [`check_failed`](Self::check_failed).
    pub(crate) fn number_kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Records a check that succeeded.
    pub(crate) fn check_passed(&self) {
        let mut state = self.state();
        if state.failure.is_some() {
            state.passes += 1;
            if state.passes >= PASSES {
                state.failure = None;
                tracing::info!("the store keeps messages again");
            }
        }
        let is_ready = state.failure.is_none() && state.damage.is_none();
        self.metrics.store_ok.set(f64::from(u8::from(is_ready)));
    }

    /// Records a check that failed; `kept` is the number of messages that were kept before it. Where some were kept since
    /// then, the store is under load and not away.
    pub(crate) fn check_failed(&self, failure: &dyn StoreFailure, kept: u64) {
        self.metrics.store_error("check");
        self.failed(failure);
        if self.kept.load(Ordering::Relaxed) == kept {
            self.not_ready(&mut self.state(), failure.to_string());
        }
    }

    fn not_ready(&self, state: &mut State, failure: String) {
        if state.failure.is_none() {
            tracing::error!("not ready: {failure}");
        }
        state.failure = Some(failure);
        state.passes = 0;
        self.metrics.store_ok.set(0.0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn refuse(health: &StoreHealth, number: u64) {
        health.failed(&"it takes too long");
        health.refused(sid(number));
    }

    #[test]
    fn one_failing_message_leaves_it_ready() {
        let health = health();
        for _ in 0..100 {
            refuse(&health, 1);
        }
        refuse(&health, 2);
        assert_eq!(health.failure(), None);
        health.kept();
        refuse(&health, 3);
        refuse(&health, 4);
        assert_eq!(health.failure(), None);
    }

    #[test]
    fn different_failing_messages_need_two_passes() {
        let health = health();
        for number in 1..=3 {
            refuse(&health, number);
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
    fn failed_check_beside_kept_messages_leaves_it_ready() {
        let health = health();
        health.kept();
        health.check_failed(&"it takes too long", 0);
        assert_eq!(health.failure(), None);
        health.check_failed(&"it takes too long", 1);
        assert!(health.failure().is_some());
    }

    #[test]
    fn damage_stays_whatever_passes() {
        let health = health();
        health.failed(&StoreError::new(StoreErrorKind::Corrupt));
        for _ in 0..5 {
            health.check_passed();
        }
        assert!(health.failure().unwrap().contains("until a restart"));
        assert!(health.metrics.render().contains("replyhook_store_up 0"));
    }
}
