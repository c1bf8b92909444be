//! Whether REST works, and which accounts have to pause.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sid::AccountSid;

/// What the last calls told.
#[derive(Debug, Default)]
pub(crate) struct RestHealth {
    state: AtomicU8,
    /// Accounts that take no calls before a time of [`Clock::monotonic`](crate::clock::Clock::monotonic).
    closed: Mutex<HashMap<AccountSid, Duration>>,
    /// Accounts that are none of ours, and of whose messages somebody was told.
    strangers: Mutex<HashSet<AccountSid>>,
}

/// Whether REST works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestState {
    /// Nothing was tried yet.
    Unknown,
    Ok,
    Failing,
}

impl RestState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Failing => "failing",
        }
    }
}

impl RestHealth {
    pub(crate) fn state(&self) -> RestState {
        match self.state.load(Ordering::Relaxed) {
            0 => RestState::Unknown,
            1 => RestState::Ok,
            _ => RestState::Failing,
        }
    }

    pub(crate) fn set(&self, works: bool) {
        self.state
            .store(if works { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Makes an account pause. Not by the wall clock: one that is set back would make the pause longer.
    pub(crate) fn close(&self, account: AccountSid, until: Duration) {
        self.lock().insert(account, until);
    }

    /// For how long an account has to pause.
    pub(crate) fn closed(&self, account: AccountSid, now: Duration) -> Option<Duration> {
        let mut closed = self.lock();
        let left = closed.get(&account)?.saturating_sub(now);
        if left.is_zero() {
            closed.remove(&account);
        }
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether this is the first message of an account that is none of ours.
    pub(crate) fn is_new_stranger(&self, account: AccountSid) -> bool {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.insert(account)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AccountSid, Duration>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
