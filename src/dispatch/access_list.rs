//! Users who may write to the bot (`guard.allow`, `guard.block`), and the refusal for others.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use replyhook_core::address_key::AddressKey;

use super::block_reason::BlockReason;
use super::counted_key::CountedKey;
use crate::address_pattern::{AddressPattern, matches_author};
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::telemetry::Throttle;

/// Period in which an address gets at most one refusal.
pub(super) const REFUSAL_PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// Period in which the log names a message of a user at most once.
const LOG_PERIOD: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of addresses or users that are marked in one period.
// Bounds the memory. Beyond it none is marked, so none gets a refusal or a log line.
const MAX_MARKS: usize = 100_000;

/// Settings of an [`AccessList`].
#[derive(Debug)]
pub(crate) struct AccessRules {
    /// Users whose messages the bot gets; empty for all users.
    pub(crate) allow: Vec<AddressPattern>,
    /// Users whose messages the bot does not get, even if `allow` has them.
    pub(crate) block: Vec<AddressPattern>,
    /// Reply to users whose messages the bot does not get; empty for none.
    pub(crate) refusal: String,
}

/// Addresses that have got a refusal, and users whom the log has named.
pub(super) struct AccessList {
    refused: Marks,
    logged: Marks,
    log_lines: Throttle,
}

impl AccessRules {
    /// Returns the reason to keep a message from the bot, if any.
    pub(super) fn denial(&self, message: &InboundMessage) -> Option<BlockReason> {
        let Self { allow, block, .. } = self;
        if matches_author(block, message) {
            return Some(BlockReason::Blocked);
        }
        let is_allowed = allow.is_empty() || matches_author(allow, message);
        (!is_allowed).then_some(BlockReason::NotAllowed)
    }
}

impl AccessList {
    pub(super) fn new() -> Self {
        Self {
            refused: Marks::new(REFUSAL_PERIOD),
            logged: Marks::new(LOG_PERIOD),
            log_lines: Throttle::new(10),
        }
    }

    /// Returns true unless the address has got a refusal in this period.
    pub(super) fn take_refusal(&self, address: &AddressKey, at: Timestamp) -> bool {
        self.refused.mark(address, at)
    }

    /// Returns the number of suppressed log lines if a line with this reason about this user may be written.
    pub(super) fn try_log(&self, reason: &str, user: CountedKey, at: Timestamp) -> Option<u64> {
        let is_first = self.logged.mark(&(reason, user), at);
        is_first.then(|| self.log_lines.try_log()).flatten()
    }
}

/// Addresses or users that were marked within a period.
// In two generations: dropping a whole one needs no scan for old entries.
struct Marks {
    period: SignedDuration,
    hasher: RandomState,
    generations: Mutex<MarkGenerations>,
}

/// Time of each mark, by hash of the address or user.
#[derive(Default)]
struct MarkGenerations {
    young: HashMap<u64, Timestamp>,
    old: HashMap<u64, Timestamp>,
    /// Start of the young generation.
    since: Timestamp,
}

impl Marks {
    fn new(period: SignedDuration) -> Self {
        Self {
            period,
            hasher: RandomState::new(),
            generations: Mutex::default(),
        }
    }

    /// Marks an address or user. Returns false if it was marked within the period, or if too many are marked.
    fn mark(&self, marked: &impl Hash, at: Timestamp) -> bool {
        let key = self.hasher.hash_one(marked);
        // A poisoned lock is harmless: the maps are valid after each statement.
        let mut marks = self.generations.lock().ignore_poison();
        let MarkGenerations { young, old, since } = &mut *marks;
        // Also after the clock was set back: otherwise the generation could stay young until the clock has caught up.
        if at.duration_since(*since).abs() >= self.period {
            // All marks of `old` are older than the period by now.
            mem::swap(young, old);
            young.clear();
            *since = at;
        }
        let marked_at = young.get(&key).or_else(|| old.get(&key));
        let is_marked = marked_at.is_some_and(|marked| {
            let passed = at.duration_since(*marked);
            !passed.is_negative() && passed < self.period
        });
        if is_marked || young.len() >= MAX_MARKS {
            return false;
        }
        young.insert(key, at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_767_603_600 + minutes * 60).unwrap_or_default()
    }

    #[test]
    fn address_is_marked_once_per_period() {
        let marks = Marks::new(SignedDuration::from_hours(1));
        let (ana, ben) = ("+15550001111", "+15550002222");
        assert!(marks.mark(&ana, at(0)));
        assert!(!marks.mark(&ana, at(0)));
        assert!(marks.mark(&ben, at(50)));
        assert!(!marks.mark(&ana, at(59)));
        assert!(marks.mark(&ana, at(60)));
        // In the old generation by now.
        assert!(!marks.mark(&ben, at(109)));
        assert!(marks.mark(&ben, at(110)));
        assert!(!marks.mark(&ana, at(119)));
    }

    #[test]
    fn number_of_marked_addresses_is_bounded() {
        let marks = Marks::new(SignedDuration::from_hours(1));
        let mark = |number: usize| marks.mark(&number, at(0));
        assert!((0..MAX_MARKS).all(mark));
        assert!(!mark(MAX_MARKS));
    }
}
