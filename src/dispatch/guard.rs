//! Which messages are kept from the handler: two bots that answer each other, our own senders, and, where a rate is set,
//! what one user sends beyond it. Asked once a message is claimed; what is stopped is answered with nothing.
//!
//! A **loop** is one of two things. A quick one is [`LOOP_TURNS`] turns of one conversation within [`LOOP_TIME`], messages that
//! came and replies that were given counted together, while the texts that come repeat ([`super::repetition`]): two bots, of which
//! each hears what the other says, are stopped after nine replies of each. A slow one is more than [`MOST_REPEATED`] texts
//! within [`ROW_TIME`] that repeat, each after a reply. Somebody who never says the same thrice is never taken for one. The
//! conversation is then muted for [`MUTED`], and counted afresh.
//!
//! Counted is what this process handles, as long as it may matter: each machine counts for itself, and a restart forgets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::Dispatcher;
use super::repetition::{HashBase, Repetition};
use crate::address::Address;
use crate::message::InboundMessage;
use crate::store::Claim;
use crate::telemetry::Throttle;

/// Messages that came and replies, within [`LOOP_TIME`]: the tenth message of a bot that has got nine.
const LOOP_TURNS: usize = 19;
const LOOP_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Texts of a row, within [`ROW_TIME`]. So often nobody says the same and has an answer each time.
const MOST_REPEATED: u32 = 30;
const ROW_TIME: SignedDuration = SignedDuration::from_mins(10);
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
    hash_base: HashBase,
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
    repetition: Repetition,
    /// Since when texts have been repeating that are counted, and how many.
    row: Option<(Timestamp, u32)>,
    /// Since the last message came.
    has_replied: bool,
    muted_since: Option<Timestamp>,
    /// When the minute began that is counted, and what has come in it.
    minute: Option<(Timestamp, u32)>,
}

impl Guard {
    pub(crate) fn new(rules: GuardRules) -> Self {
        Self {
            loops: rules.loops,
            per_minute: rules.per_minute,
            hash_base: HashBase::random(),
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
        let at = message.received_at;
        // Files and places say nothing again, and a button was pressed by somebody.
        let text = message.text().filter(|_| message.button.is_none());
        let text = text.map(str::trim);
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
        if self.loops && conversation.is_loop(at, self.hash_base, text) {
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
            seen.conversations.of(conversation, at).said(at);
        }
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
    fn is_loop(&mut self, at: Timestamp, base: HashBase, text: Option<&str>) -> bool {
        let repeats = self.repetition.hears(base, text);
        self.count(at);
        // Messages that wait for a slow bot came before it said anything: what is later than this one made nobody say it.
        let until_now = self.times.iter().filter(|time| **time <= at);
        let is_quick = until_now.count() >= LOOP_TURNS;
        self.in_row(at, repeats) > MOST_REPEATED || (repeats && is_quick)
    }

    /// How many texts have been repeating. A bot that says nothing has no part in it.
    fn in_row(&mut self, at: Timestamp, repeats: bool) -> u32 {
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

    fn said(&mut self, at: Timestamp) {
        self.has_replied = true;
        self.count(at);
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
                if let Some(suppressed) = self.guard.rate_warnings.pass() {
                    tracing::warn!(%message_sid, ?user, suppressed, "not handled: the user has sent more than guard.messages_per_user_per_minute");
                }
            }
            Stop::OwnNumber => {
                if let Some(suppressed) = self.guard.own_number_warnings.pass() {
                    tracing::warn!(%message_sid, ?user, suppressed, "not handled: it is from a sender of ours");
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
            let base = HashBase::random();
            let mut conversation = Conversation::default();
            let mut now = 0;
            for (number, (passed, replies)) in (0..).zip(turns) {
                now += passed;
                let text = format!("{number}, and no more of it");
                prop_assert!(!conversation.is_loop(at(now), base, Some(&text)));
                if replies {
                    conversation.said(at(now));
                }
                prop_assert!(conversation.times.len() <= LOOP_TURNS);
            }
        }

        #[test]
        fn two_bots_are_stopped_before_their_tenth_answer_if_they_are_quick(
            pauses in prop::collection::vec(0_i64..1_500, 19), texts in texts(),
        ) {
            let mut pauses = pauses.into_iter();
            let pauses = || pauses.next().unwrap_or_default();
            prop_assert_eq!(answered(texts, pauses), 9);
        }

        #[test]
        fn two_bots_are_stopped_before_their_fortieth_answer_if_they_are_slow(
            pauses in prop::collection::vec(1_700_i64..9_000, 100), texts in texts(),
        ) {
            let mut pauses = pauses.into_iter();
            let pauses = || pauses.next().unwrap_or_default();
            let answered = answered(texts, pauses);
            prop_assert!((32..40).contains(&answered), "{}", answered);
        }
    }

    /// What another bot says: always the same, one of three texts in turn, or more each time.
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

    /// How often a bot is answered that says these, and waits so many milliseconds before each turn.
    fn answered(text: fn(usize) -> String, mut pause: impl FnMut() -> i64) -> usize {
        let base = HashBase::random();
        let mut conversation = Conversation::default();
        let mut now = 0;
        let mut wait = || {
            now += pause();
            at(now)
        };
        let is_answered = |number: &usize| {
            let is_loop = conversation.is_loop(wait(), base, Some(&text(*number)));
            if !is_loop {
                conversation.said(wait());
            }
            !is_loop
        };
        (0..100).take_while(is_answered).count()
    }

    #[test]
    fn an_impatient_user_of_a_slow_bot_is_no_bot() {
        let base = HashBase::random();
        let mut conversation = Conversation::default();
        // Each is handled when the one before has been answered, which takes five seconds.
        for number in 0..10 {
            assert!(!conversation.is_loop(at(number * 500), base, Some("hello?")));
            conversation.said(at((number + 1) * 5_000));
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
