//! Which messages are kept from the handler: two bots that answer each other, our own senders, and, where a rate is set,
//! what one user sends beyond it. Asked once a message is claimed; what is stopped is answered with nothing.
//!
//! A **loop** is both at once: [`LOOP_TURNS`] turns of one conversation within [`LOOP_TIME`], messages that came and replies
//! that were given counted together, and [`LOOP_TEXTS`] equal texts in a row among what came. Two bots, of which each hears what the
//! other says, are stopped after nine replies of each; somebody who never says the same thrice is never taken for one. The
//! conversation is then muted for [`MUTED`], and counted afresh.
//!
//! Counted is what this process handles, as long as it may matter: each machine counts for itself, and a restart forgets.
//! Of texts there are only hashes.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::Dispatcher;
use crate::address::Address;
use crate::message::InboundMessage;
use crate::store::Claim;
use crate::telemetry::Throttle;

/// Messages that came and replies, within [`LOOP_TIME`]: the tenth message of a bot that has got nine.
const LOOP_TURNS: usize = 19;
const LOOP_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Equal ones in a row.
const LOOP_TEXTS: u32 = 3;
const MUTED: SignedDuration = SignedDuration::from_secs(60);
const MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// Conversations that are remembered, twice: see [`Conversations`].
const MOST_CONVERSATIONS: usize = 10_000;
/// Senders of ours that are remembered.
const MOST_SENDERS: usize = 1_000;

/// What is stopped.
#[derive(Debug, Clone)]
pub(crate) struct GuardRules {
    /// Two bots that answer each other.
    pub(crate) loops: bool,
    /// What a conversation sends in a minute beyond this; 0 for no limit.
    pub(crate) per_minute: u32,
    /// Senders of ours, beside those that messages are sent to.
    pub(crate) own_numbers: Vec<Address>,
}

/// Counts, and says what is stopped.
pub(crate) struct Guard {
    loops: bool,
    per_minute: u32,
    hashes: RandomState,
    seen: Mutex<Seen>,
    rate_warnings: Throttle,
    own_number_warnings: Throttle,
}

/// Why a message is kept from the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    OwnNumber,
    /// The message with which a loop is found out.
    Loop,
    /// One after that.
    Muted,
    Rate,
}

impl Stop {
    /// The label's value.
    fn as_str(self) -> &'static str {
        match self {
            Self::OwnNumber => "own_number",
            Self::Loop => "loop",
            Self::Muted => "muted",
            Self::Rate => "rate",
        }
    }
}

struct Seen {
    senders: HashSet<Address>,
    conversations: Conversations,
}

/// Two generations: once the young one is full or a minute old it becomes the old one, and that is forgotten. Whatever is
/// asked for becomes young. So nothing is forgotten within a minute, unless very many write in it.
#[derive(Default)]
struct Conversations {
    young: HashMap<i64, Conversation>,
    old: HashMap<i64, Conversation>,
    /// When the young one began.
    since: Timestamp,
}

#[derive(Default)]
struct Conversation {
    /// When the latest messages came or were said; no more than decide.
    times: VecDeque<Timestamp>,
    /// The last text that came, and how often it came in a row.
    text: Option<u64>,
    in_a_row: u32,
    muted_since: Option<Timestamp>,
    /// When the minute began that is counted, and what has come in it.
    minute: Option<(Timestamp, u32)>,
}

impl Guard {
    pub(crate) fn new(rules: GuardRules) -> Self {
        Self {
            loops: rules.loops,
            per_minute: rules.per_minute,
            hashes: RandomState::new(),
            seen: Mutex::new(Seen {
                senders: rules.own_numbers.into_iter().collect(),
                conversations: Conversations::default(),
            }),
            rate_warnings: Throttle::new(10),
            own_number_warnings: Throttle::new(10),
        }
    }

    /// Whether a message is stopped, and why. A further attempt at one is not counted again.
    fn ask(&self, claim: Claim, message: &InboundMessage) -> Option<Stop> {
        let (at, text) = (message.received_at, self.hash(message));
        let mut seen = self.lock();
        if seen.is_own(message) {
            return Some(Stop::OwnNumber);
        }
        if !self.loops && self.per_minute == 0 {
            return None;
        }
        let conversation = seen.conversations.of(claim.conversation, at);
        if conversation.is_muted(at) {
            return Some(Stop::Muted);
        }
        if claim.attempt > 1 {
            return None;
        }
        if self.loops && conversation.is_loop(at, text) {
            conversation.mute(at);
            return Some(Stop::Loop);
        }
        let is_over = self.per_minute > 0 && conversation.in_minute(at) > self.per_minute;
        is_over.then_some(Stop::Rate)
    }

    /// Counts a reply, of however many messages.
    pub(super) fn said(&self, conversation: i64, at: Timestamp) {
        if self.loops {
            let mut seen = self.lock();
            seen.conversations.of(conversation, at).count(at);
        }
    }

    /// Of a text that was written. Files and places are never equal, and a button was pressed by somebody.
    fn hash(&self, message: &InboundMessage) -> Option<u64> {
        let text = message.text().filter(|_| message.button.is_none())?;
        Some(self.hashes.hash_one(text.trim()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether a sender of ours has written: what we say to ourselves would come back.
    fn is_own(&mut self, message: &InboundMessage) -> bool {
        if !self.senders.contains(&message.to) && self.senders.len() < MOST_SENDERS {
            self.senders.insert(message.to.clone());
        }
        message.from == message.to || self.senders.contains(&message.from)
    }
}

impl Conversations {
    fn of(&mut self, id: i64, at: Timestamp) -> &mut Conversation {
        let is_aged = at.duration_since(self.since) >= MINUTE;
        if is_aged || self.young.len() >= MOST_CONVERSATIONS {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.since = at;
        }
        let known = self.old.remove(&id);
        self.young
            .entry(id)
            .or_insert_with(|| known.unwrap_or_default())
    }
}

impl Conversation {
    fn is_muted(&self, at: Timestamp) -> bool {
        self.muted_since
            .is_some_and(|since| is_in(at, since, MUTED))
    }

    /// What is counted begins anew.
    fn mute(&mut self, at: Timestamp) {
        *self = Self {
            muted_since: Some(at),
            minute: self.minute,
            ..Self::default()
        };
    }

    /// Counts what came, and says whether that makes a loop.
    fn is_loop(&mut self, at: Timestamp, text: Option<u64>) -> bool {
        let before = if text == self.text { self.in_a_row } else { 0 };
        self.in_a_row = if text.is_some() { before + 1 } else { 0 };
        self.text = text;
        self.count(at);
        // Messages that wait for a slow bot came before it said anything: what is later than this one made nobody say it.
        let until_now = self.times.iter().filter(|time| **time <= at);
        self.in_a_row >= LOOP_TEXTS && until_now.count() >= LOOP_TURNS
    }

    fn count(&mut self, at: Timestamp) {
        self.times
            .retain(|time| at.duration_since(*time) < LOOP_TIME);
        if self.times.len() == LOOP_TURNS {
            self.times.pop_front();
        }
        self.times.push_back(at);
    }

    /// Counts what came, and says how much that is in this minute.
    fn in_minute(&mut self, at: Timestamp) -> u32 {
        let minute = self.minute.filter(|(since, _)| is_in(at, *since, MINUTE));
        let (since, number) = minute.unwrap_or((at, 0));
        let number = number.saturating_add(1);
        self.minute = Some((since, number));
        number
    }
}

/// Whether a moment is in the time that begins at `since`.
fn is_in(at: Timestamp, since: Timestamp, time: SignedDuration) -> bool {
    let passed = at.duration_since(since);
    !passed.is_negative() && passed < time
}

impl Dispatcher {
    /// Whether a message is kept from the handler; the operator is told.
    pub(super) fn stops(&self, claim: Claim, message: &InboundMessage) -> bool {
        let Some(stop) = self.guard.ask(claim, message) else {
            return false;
        };
        self.metrics.guard(stop.as_str());
        let (message_sid, user) = (message.message_sid, &message.from);
        match stop {
            Stop::Loop => {
                tracing::error!(%message_sid, ?user, "a reply loop: the user seems to be a bot that answers ours; the conversation is muted for a minute");
            }
            Stop::Muted => {
                tracing::debug!(%message_sid, ?user, "not handled: the conversation is muted");
            }
            Stop::Rate => {
                if let Some(held) = self.guard.rate_warnings.pass() {
                    tracing::warn!(%message_sid, ?user, held, "not handled: the user has sent more than guard.user_per_minute");
                }
            }
            Stop::OwnNumber => {
                if let Some(held) = self.guard.own_number_warnings.pass() {
                    tracing::warn!(%message_sid, ?user, held, "not handled: it is from a sender of ours");
                }
            }
        }
        true
    }
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
        fn who_never_says_the_same_again_is_in_no_loop(
            turns in prop::collection::vec((-60_000_i64..60_000, any::<bool>()), 0..200),
        ) {
            let mut conversation = Conversation::default();
            let mut now = 0;
            for (text, (passed, replies)) in (0..).zip(turns) {
                now += passed;
                prop_assert!(!conversation.is_loop(at(now), Some(text)));
                if replies {
                    conversation.count(at(now));
                }
                prop_assert!(conversation.times.len() <= LOOP_TURNS);
            }
        }

        #[test]
        fn two_bots_are_stopped_before_their_tenth_answer_if_they_are_quick(
            pauses in prop::collection::vec(0_i64..1_500, 19),
        ) {
            let mut conversation = Conversation::default();
            let mut pauses = pauses.into_iter();
            let mut now = 0;
            let mut turns = 0;
            let mut wait = || { now += pauses.next().unwrap_or_default(); at(now) };
            while !conversation.is_loop(wait(), Some(1)) {
                conversation.count(wait());
                turns += 1;
            }
            prop_assert_eq!(turns, 9);
        }
    }

    #[test]
    fn an_impatient_user_of_a_slow_bot_is_no_bot() {
        let mut conversation = Conversation::default();
        // Each is handled when the one before has been answered, which takes five seconds.
        for number in 0..10 {
            assert!(!conversation.is_loop(at(number * 500), Some(1)));
            conversation.count(at((number + 1) * 5_000));
        }
    }

    #[test]
    fn what_is_counted_lasts_a_minute_and_takes_little() {
        let mut conversations = Conversations::default();
        conversations.of(-1, at(0)).mute(at(0));
        for number in 0..9_000 {
            conversations.of(number, at(number));
        }
        conversations.of(-2, at(59_999));
        assert!(conversations.of(-1, at(59_999)).is_muted(at(59_999)));
        for number in 0..100_000 {
            conversations.of(number, at(60_000));
            let remembered = conversations.young.len() + conversations.old.len();
            assert!(remembered <= 2 * MOST_CONVERSATIONS);
        }
    }
}
