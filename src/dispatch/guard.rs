//! Guard that keeps messages from the handler: reply loops, messages from your own senders, messages of users who may not
//! write to the bot, and messages beyond the rate limit of a user. A claimed message is checked before its handler runs; a
//! blocked one gets the empty response, or a refusal.
//!
//! There are two kinds of **loop**, and both need inbound texts that repeat ([`super::repetition`]). A quick loop has
//! [`LOOP_TURNS`] turns of one conversation, inbound messages and replies together, within [`LOOP_TIME`]: two bots that
//! reply to each other are stopped after nine replies each. A slow loop has more than [`MAX_REPEATED`] repeated texts
//! within [`ROW_TIME`], each after a reply. A user who never sends the same text three times is never blocked. On a
//! loop the conversation is muted for [`MUTE_DURATION`], and counting starts again.
//!
//! The **rate limit** counts the messages of a user: of one number on all channels and in both of its spellings, and of all
//! addresses that stored evidence ties together.
//!
//! Counts are in memory and cover the messages that this process handles: a restart resets them, and each
//! server counts for itself.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use replyhook_core::address_key::AddressKey;

use super::access_list::{AccessList, AccessRules};
use super::block_reason::BlockReason;
use super::counted_key::CountedKey;
use super::repetition::{HashBase, Repetition};
use crate::address::Address;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reloadable::Reloadable;
use crate::store::Claim;

/// Turns of a quick loop, messages and replies together: nine replies, and the tenth message of the other bot.
const LOOP_TURNS: usize = 19;
/// Time within which a quick loop has its turns.
const LOOP_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Maximum number of repeated texts, each after a reply, within [`ROW_TIME`]. More than people send.
const MAX_REPEATED: u32 = 30;
/// Time within which repeated texts count.
const ROW_TIME: SignedDuration = SignedDuration::from_mins(10);
/// Time for which a conversation is muted after a loop.
const MUTE_DURATION: SignedDuration = SignedDuration::from_secs(60);
const MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// Maximum number of entries in each of the two generations of [`GenerationalCounts`].
const MAX_COUNTED: usize = 10_000;
/// Maximum number of own senders that are learned from messages.
// Bounds the memory, since `To` of every message is learned.
const MAX_SENDERS: usize = 1_000;

/// Settings of the guard, which a reload replaces.
#[derive(Debug)]
pub(crate) struct GuardRules {
    /// True if reply loops are stopped.
    pub(crate) loops: bool,
    /// Maximum number of messages of a user in a minute; 0 for no limit.
    pub(crate) per_minute: u32,
    /// Own senders, in addition to those that messages are sent to, each in both of its spellings.
    pub(crate) own_numbers: HashSet<Address>,
    /// Users who may write to the bot.
    pub(crate) access: AccessRules,
}

/// Loop detection and rate limit.
pub(crate) struct Guard {
    pub(super) rules: Reloadable<GuardRules>,
    hash_base: HashBase,
    /// Hashes addresses, with keys of this process.
    hasher: RandomState,
    seen: Mutex<Seen>,
    pub(super) access: AccessList,
}

/// State of the guard.
struct Seen {
    /// Own senders that messages were sent to.
    senders: HashSet<Address>,
    counts: GenerationalCounts,
}

/// Counts of conversations and users, in two generations.
///
/// When the young generation is full or a minute old, it becomes the old one, and the old one is dropped. An entry that is
/// used moves to the young one. So counts last at least a minute, unless more than [`MAX_COUNTED`] are used in it.
// Dropping a whole generation needs no scan for old entries.
#[derive(Default)]
struct GenerationalCounts {
    young: HashMap<CountedKey, MessageCounts>,
    old: HashMap<CountedKey, MessageCounts>,
    /// Start of the young generation.
    since: Timestamp,
}

/// Counts of one conversation or user.
#[derive(Default)]
struct MessageCounts {
    /// Times of the latest messages and replies, at most [`LOOP_TURNS`].
    times: VecDeque<Timestamp>,
    repetition: Repetition,
    /// Time of the first repeated text that counts, and the number of them that followed a reply.
    row: Option<(Timestamp, u32)>,
    /// True if the bot has replied since the last message.
    has_replied: bool,
    muted_since: Option<Timestamp>,
    /// Start of the current minute, and the number of messages in it.
    minute: Option<(Timestamp, u32)>,
}

impl Guard {
    pub(crate) fn new(rules: Reloadable<GuardRules>) -> Self {
        Self {
            rules,
            hash_base: HashBase::random(),
            hasher: RandomState::new(),
            seen: Mutex::new(Seen {
                senders: HashSet::new(),
                counts: GenerationalCounts::default(),
            }),
            access: AccessList::new(),
        }
    }

    /// Counts a message at its first attempt, and returns the reason to block it, if any.
    pub(super) fn count_message(
        &self,
        claim: Claim,
        message: &InboundMessage,
    ) -> Option<BlockReason> {
        let rules = self.rules.load();
        let at = message.received_at;
        // Only text can repeat. Media and locations have none, and a button is tapped by a person.
        let text = message.text().filter(|_| message.button.is_none());
        let text = text.map(str::trim);
        // Before the lists, so that an own sender never gets a refusal.
        if self.lock().learn_sender(message) || rules.own_numbers.contains(&message.from) {
            return Some(BlockReason::OwnNumber);
        }
        if let Some(reason) = rules.access.denial(message) {
            return Some(reason);
        }
        if rules.loops {
            let mut seen = self.lock();
            let conversation = CountedKey::Conversation(claim.conversation);
            let conversation = seen.counts.counts_of(conversation, at);
            // Before the attempt is checked: a further attempt in a muted conversation is blocked as well.
            if conversation.is_muted(at) {
                return Some(BlockReason::Muted);
            }
            if claim.attempt == 1 && conversation.detect_loop(at, self.hash_base, text) {
                conversation.mute(at);
                return Some(BlockReason::Loop);
            }
        }
        if rules.per_minute == 0 || claim.attempt > 1 {
            return None;
        }
        // By the user, who may have several conversations. A loop is one of a conversation.
        let number = self.count_user(claim, message);
        (number > rules.per_minute).then_some(BlockReason::Rate)
    }

    /// Counts a message of a user and returns the number of the user's messages in this minute.
    fn count_user(&self, claim: Claim, message: &InboundMessage) -> u32 {
        let at = message.received_at;
        let author = self.author(message);
        let mut seen = self.lock();
        let Some(user) = claim.user else {
            return seen.counts.counts_of(author, at).count_in_minute(at);
        };
        // Messages from before the first link of the address count as well.
        let earlier = seen.counts.take_minute(author);
        let user = seen.counts.counts_of(CountedKey::User(user), at);
        user.add_minute(at, earlier);
        user.count_in_minute(at)
    }

    /// Returns the key of the user who wrote a message.
    pub(super) fn user_of(&self, claim: Claim, message: &InboundMessage) -> CountedKey {
        match claim.user {
            Some(user) => CountedKey::User(user),
            None => self.author(message),
        }
    }

    fn author(&self, message: &InboundMessage) -> CountedKey {
        let key = AddressKey::of(&message.from);
        let author = (message.account_sid, key.without_channel());
        CountedKey::Author(self.hasher.hash_one(author))
    }

    /// Counts a reply as one turn, whatever its number of messages.
    pub(super) fn count_reply(&self, conversation: i64, at: Timestamp) {
        if self.rules.load().loops {
            let mut seen = self.lock();
            let conversation = CountedKey::Conversation(conversation);
            seen.counts.counts_of(conversation, at).count_reply(at);
        }
    }

    // A panic under the lock leaves at worst a wrong count, so a poisoned lock is usable.
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().ignore_poison()
    }
}

impl Seen {
    /// Learns the sender that a message was sent to, and returns whether the author is one too. A reply to that would
    /// come back as a message, without end.
    fn learn_sender(&mut self, message: &InboundMessage) -> bool {
        if !self.senders.contains(&message.to) && self.senders.len() < MAX_SENDERS {
            self.senders.insert(message.to.clone());
            self.senders.extend(spellings(&message.to));
        }
        message.from == message.to || self.senders.contains(&message.from)
    }
}

/// Returns both spellings of a number of Mexico or Brazil, and any other address alone.
// Listed when a sender is learned, so that the check of a message compares its `From` without making a key of it.
pub(crate) fn spellings(address: &Address) -> impl Iterator<Item = Address> {
    let texts = AddressKey::of(address).spellings();
    texts.into_iter().map(Address::from)
}

impl GenerationalCounts {
    /// Returns the messages that were counted in the last minute of an entry, and resets their number.
    fn take_minute(&mut self, key: CountedKey) -> Option<(Timestamp, u32)> {
        let young = self.young.get_mut(&key);
        young.or_else(|| self.old.get_mut(&key))?.minute.take()
    }

    fn counts_of(&mut self, key: CountedKey, at: Timestamp) -> &mut MessageCounts {
        let is_aged = at.duration_since(self.since) >= MINUTE;
        if is_aged || self.young.len() >= MAX_COUNTED {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.since = at;
        }
        let known = self.old.remove(&key);
        // An entry is in one generation at a time.
        self.young
            .entry(key)
            .or_insert_with(|| known.unwrap_or_default())
    }
}

impl MessageCounts {
    /// Adds the messages that were counted under another key in this minute.
    fn add_minute(&mut self, at: Timestamp, other: Option<(Timestamp, u32)>) {
        let both = [self.minute, other].into_iter().flatten();
        let both = both.filter(|(since, _)| is_in(at, *since, MINUTE));
        self.minute = both.reduce(|one, other| (one.0.min(other.0), one.1.saturating_add(other.1)));
    }

    fn is_muted(&self, at: Timestamp) -> bool {
        self.muted_since
            .is_some_and(|since| is_in(at, since, MUTE_DURATION))
    }

    /// Mutes the conversation and resets its counts, except for the rate limit.
    fn mute(&mut self, at: Timestamp) {
        *self = Self {
            muted_since: Some(at),
            minute: self.minute,
            ..Self::default()
        };
    }

    /// Counts an inbound message and returns whether it completes a loop.
    fn detect_loop(&mut self, at: Timestamp, base: HashBase, text: Option<&str>) -> bool {
        let repeats = self.repetition.observe(base, text);
        self.count_turn(at);
        // Messages of an impatient user queue up behind a slow bot, and are checked after replies that came later than
        // they did. A reply later than this message cannot have caused it, so it does not count.
        let until_now = self.times.iter().filter(|time| **time <= at);
        let is_quick = until_now.count() >= LOOP_TURNS;
        self.extend_streak(at, repeats) > MAX_REPEATED || (repeats && is_quick)
    }

    /// Counts a repeated text that follows a reply, and returns the number of them.
    // A text without a reply before it shows no loop: only one side is talking.
    fn extend_streak(&mut self, at: Timestamp, repeats: bool) -> u32 {
        let has_replied = mem::take(&mut self.has_replied);
        if !repeats {
            self.row = None;
            return 0;
        }
        let row = self.row.filter(|(since, _)| is_in(at, *since, ROW_TIME));
        let (since, number) = row.unwrap_or((at, 0));
        let number = number + u32::from(has_replied);
        self.row = Some((since, number));
        number
    }

    /// Counts a reply.
    fn count_reply(&mut self, at: Timestamp) {
        self.has_replied = true;
        self.count_turn(at);
    }

    /// Adds a turn, and drops turns that are too old or too many to matter.
    fn count_turn(&mut self, at: Timestamp) {
        self.times
            .retain(|time| at.duration_since(*time) < LOOP_TIME);
        if self.times.len() == LOOP_TURNS {
            self.times.pop_front();
        }
        self.times.push_back(at);
    }

    /// Counts an inbound message and returns the number of messages in this minute.
    fn count_in_minute(&mut self, at: Timestamp) -> u32 {
        let minute = self.minute.filter(|(since, _)| is_in(at, *since, MINUTE));
        let (since, number) = minute.unwrap_or((at, 0));
        let number = number.saturating_add(1);
        self.minute = Some((since, number));
        number
    }
}

/// Returns whether `at` is in the interval of length `time` that begins at `since`.
fn is_in(at: Timestamp, since: Timestamp, time: SignedDuration) -> bool {
    let passed = at.duration_since(since);
    // Negative after the clock was set back. Otherwise a conversation could stay muted until the clock has caught up.
    !passed.is_negative() && passed < time
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_767_603_600_000 + ms).unwrap_or_default()
    }

    proptest! {
        #[test]
        fn unique_texts_are_not_detected_as_loop(
            turns in prop::collection::vec((-60_000_i64..60_000, any::<bool>()), 0..200),
        ) {
            let base = HashBase::random();
            let mut conversation = MessageCounts::default();
            let mut now = 0;
            for (number, (passed, replies)) in (0..).zip(turns) {
                now += passed;
                let text = format!("{number}, and no more of it");
                prop_assert!(!conversation.detect_loop(at(now), base, Some(&text)));
                if replies {
                    conversation.count_reply(at(now));
                }
                prop_assert!(conversation.times.len() <= LOOP_TURNS);
            }
        }

        #[test]
        fn fast_bot_loop_stops_before_tenth_reply(
            pauses in prop::collection::vec(0_i64..1_500, 19), texts in texts(),
        ) {
            let mut pauses = pauses.into_iter();
            let pauses = || pauses.next().unwrap_or_default();
            prop_assert_eq!(answered(texts, pauses), 9);
        }

        #[test]
        fn slow_bot_loop_stops_before_fortieth_reply(
            pauses in prop::collection::vec(1_700_i64..9_000, 100), texts in texts(),
        ) {
            let mut pauses = pauses.into_iter();
            let pauses = || pauses.next().unwrap_or_default();
            let answered = answered(texts, pauses);
            prop_assert!((32..40).contains(&answered), "{}", answered);
        }
    }

    /// Texts of another bot: always the same one, three in turn, or a longer one each time.
    fn texts() -> impl Strategy<Value = fn(usize) -> String> {
        prop_oneof![
            Just((|_| "Thank you for your message!".to_owned()) as fn(usize) -> String),
            Just((|number| format!("Answer {}", number % 3)) as fn(usize) -> String),
            Just(
                (|number| format!("{}hi", "Hello Bot, you said: ".repeat(number)))
                    as fn(usize) -> String
            ),
        ]
    }

    /// Number of replies to a bot that sends these texts and waits `pause` milliseconds before each turn.
    fn answered(text: fn(usize) -> String, mut pause: impl FnMut() -> i64) -> usize {
        let base = HashBase::random();
        let mut conversation = MessageCounts::default();
        let mut now = 0;
        let mut wait = || {
            now += pause();
            at(now)
        };
        let is_answered = |number: &usize| {
            let is_loop = conversation.detect_loop(wait(), base, Some(&text(*number)));
            if !is_loop {
                conversation.count_reply(wait());
            }
            !is_loop
        };
        (0..100).take_while(is_answered).count()
    }

    // An impatient user repeats a message while the bot takes five seconds for each reply.
    #[test]
    fn repeated_texts_to_slow_bot_are_not_loop() {
        let base = HashBase::random();
        let mut conversation = MessageCounts::default();
        // Each message is handled after the reply to the one before, which takes five seconds.
        for number in 0..10 {
            assert!(!conversation.detect_loop(at(number * 500), base, Some("hello?")));
            conversation.count_reply(at((number + 1) * 5_000));
        }
    }

    #[test]
    fn guard_state_lasts_one_minute_and_is_bounded() {
        let mut conversations = GenerationalCounts::default();
        let key = CountedKey::Conversation;
        conversations.counts_of(key(-1), at(0)).mute(at(0));
        for number in 0..9_000 {
            conversations.counts_of(key(number), at(number));
        }
        conversations.counts_of(key(-2), at(59_999));
        let muted = conversations.counts_of(key(-1), at(59_999));
        assert!(muted.is_muted(at(59_999)));
        for number in 0..100_000 {
            conversations.counts_of(key(number), at(60_000));
            let remembered = conversations.young.len() + conversations.old.len();
            assert!(remembered <= 2 * MAX_COUNTED);
        }
    }
}
