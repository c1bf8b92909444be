//! Health of the REST API, and accounts whose calls are paused.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::lock::IgnorePoison;
use crate::sid::AccountSid;
use crate::twilio::{AccountKeys, Keyring};

/// Health of the REST API, as the last calls have shown it.
#[derive(Debug, Default)]
pub(crate) struct RestHealth {
    // Relaxed suffices: a reader wants the latest state, and no other data depends on it.
    state: AtomicU8,
    paused: Mutex<HashMap<AccountSid, Pause>>,
    /// Accounts that this server does not send for and has logged a warning about.
    unknown_accounts: Mutex<HashSet<AccountSid>>,
}

/// Pause of an account.
#[derive(Debug)]
struct Pause {
    /// Time of [`Clock::monotonic`](crate::clock::Clock::monotonic) at which the pause ends.
    until: Duration,
    /// Keys that Twilio has rejected, if that is the reason.
    rejected: Option<AccountKeys>,
}

/// State of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestState {
    /// No call was made yet.
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

    /// Sets the state by the result of a call.
    pub(crate) fn set_ok(&self, is_ok: bool) {
        self.state
            .store(if is_ok { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Pauses the calls of an account. A pause because of `rejected` keys is for these keys only.
    // Monotonic: setting the wall clock back must not extend a pause.
    pub(crate) fn pause_account(
        &self,
        account: AccountSid,
        until: Duration,
        rejected: Option<AccountKeys>,
    ) {
        self.lock().insert(account, Pause { until, rejected });
    }

    /// Ends the pauses of accounts whose rejected keys were replaced, and returns these accounts.
    pub(crate) fn end_pauses_of_old_keys(&self, keyring: &Keyring) -> Vec<AccountSid> {
        let is_old = |account: &AccountSid, pause: &mut Pause| {
            let is_current = |old| {
                let current = keyring.keys(*account);
                current.is_some_and(|current| current.is_same(old))
            };
            pause.rejected.as_ref().is_some_and(|old| !is_current(old))
        };
        let mut paused = self.lock();
        let ended = paused.extract_if(is_old);
        ended.map(|(account, _)| account).collect()
    }

    /// Returns the remaining pause of an account, if it is paused.
    pub(crate) fn remaining_pause(&self, account: AccountSid, now: Duration) -> Option<Duration> {
        let mut paused = self.lock();
        let remaining = paused.get(&account)?.until.saturating_sub(now);
        if remaining.is_zero() {
            paused.remove(&account);
        }
        Some(remaining).filter(|remaining| !remaining.is_zero())
    }

    /// Ends all pauses.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(crate) fn end_pauses(&self) {
        self.lock().clear();
    }

    /// Adds an unknown account. Returns whether it is new, so that each is logged once.
    pub(crate) fn add_unknown_account(&self, account: AccountSid) -> bool {
        // A poisoned lock is usable: each change is a single insertion or removal.
        let mut accounts = self.unknown_accounts.lock().ignore_poison();
        accounts.insert(account)
    }

    // A poisoned lock is usable: each change is a single insertion or removal.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AccountSid, Pause>> {
        self.paused.lock().ignore_poison()
    }
}
