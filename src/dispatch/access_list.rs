//! Users who may write to the bot (`guard.allow`, `guard.block`), and the refusal for others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

use super::block_reason::BlockReason;
use crate::address::Address;
use crate::address_pattern::{AddressPattern, matches_author};
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::telemetry::Throttle;

/// Period in which an address gets at most one refusal.
pub(super) const REFUSAL_PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// Period in which the log names a message of an address at most once.
const LOG_PERIOD: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of addresses that are marked in one period.
// Bounds the memory. Beyond it no address is marked, so it gets neither a refusal nor a log line.
const MAX_ADDRESSES: usize = 100_000;

/// Settings of an [`AccessList`].
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessRules {
    /// Users whose messages the bot gets; empty for all users.
    pub(crate) allow: Vec<AddressPattern>,
    /// Users whose messages the bot does not get, even if `allow` has them.
    pub(crate) block: Vec<AddressPattern>,
    /// Reply to users whose messages the bot does not get; empty for none.
    pub(crate) refusal: String,
}

/// Users who may write to the bot.
pub(super) struct AccessList {
    rules: AccessRules,
    refused: AddressMarks,
    logged: AddressMarks,
    log_lines: Throttle,
}

impl AccessList {
    pub(super) fn new(rules: AccessRules) -> Self {
        Self {
            rules,
            refused: AddressMarks::new(REFUSAL_PERIOD),
            logged: AddressMarks::new(LOG_PERIOD),
            log_lines: Throttle::new(10),
        }
    }

    /// Returns the reason to keep a message from the bot, if any.
    pub(super) fn denial(&self, message: &InboundMessage) -> Option<BlockReason> {
        let AccessRules { allow, block, .. } = &self.rules;
        if matches_author(block, message) {
            return Some(BlockReason::Blocked);
        }
        let is_allowed = allow.is_empty() || matches_author(allow, message);
        (!is_allowed).then_some(BlockReason::NotAllowed)
    }

    /// Returns the refusal for the author of a message, unless the author has got one in this period.
    pub(super) fn take_refusal(&self, message: &InboundMessage) -> Option<&str> {
        let refusal = Some(self.rules.refusal.as_str()).filter(|text| !text.is_empty())?;
        let is_first = self.refused.mark(&message.from, message.received_at);
        is_first.then_some(refusal)
    }

    /// Returns the number of suppressed log lines if a line about the author of a message may be written.
    pub(super) fn try_log(&self, message: &InboundMessage) -> Option<u64> {
        let is_first = self.logged.mark(&message.from, message.received_at);
        is_first.then(|| self.log_lines.try_log()).flatten()
    }
}

/// Addresses that were marked within a period.
// In two generations: dropping a whole one needs no scan for old entries.
struct AddressMarks {
    period: SignedDuration,
    hasher: RandomState,
    generations: Mutex<MarkGenerations>,
}

/// Time of each mark, by hash of the address.
#[derive(Default)]
struct MarkGenerations {
    young: HashMap<u64, Timestamp>,
    old: HashMap<u64, Timestamp>,
    /// Start of the young generation.
    since: Timestamp,
}

impl AddressMarks {
    fn new(period: SignedDuration) -> Self {
        Self {
            period,
            hasher: RandomState::new(),
            generations: Mutex::default(),
        }
    }

    /// Marks an address. Returns false if it was marked within the period, or if too many addresses are marked.
    fn mark(&self, address: &Address, at: Timestamp) -> bool {
        let key = self.hasher.hash_one(address);
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
        if is_marked || young.len() >= MAX_ADDRESSES {
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
        let marks = AddressMarks::new(SignedDuration::from_hours(1));
        let (ana, ben) = (
            Address::parse("+15550001111"),
            Address::parse("+15550002222"),
        );
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
        let marks = AddressMarks::new(SignedDuration::from_hours(1));
        let mark = |number: usize| marks.mark(&Address::parse(format!("+1{number}")), at(0));
        assert!((0..MAX_ADDRESSES).all(mark));
        assert!(!mark(MAX_ADDRESSES));
    }
}
