//! Everything that changes, behind one lock that is never held while something is waited for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::faults::Faults;
use super::record::{Direction, Entry, Exchange, Record};
use super::traffic::external_user_id;
use crate::address::{Address, Identity};

/// What is remembered of each kind: a long day at the desk.
const MOST_MESSAGES: usize = 20_000;
const MOST_EXCHANGES: usize = 5_000;
const MOST_ENTRIES: usize = 1_000;
const MOST_MEDIA_BYTES: usize = 256 * 1024 * 1024;
const MOST_EXCHANGE_BYTES: usize = 128 * 1024 * 1024;

/// How long anything may be said after the user's last message (WhatsApp). Twilio keeps no margin.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

#[derive(Default)]
pub(super) struct State {
    pub(super) messages: Vec<Record>,
    pub(super) media: HashMap<String, Hosted>,
    media_order: VecDeque<String>,
    media_bytes: usize,
    pub(super) exchanges: VecDeque<Exchange>,
    pub(super) debugger: VecDeque<Entry>,
    pub(super) faults: Faults,
    /// Sender and user, of whom the user said STOP on SMS.
    pub(super) blocked: HashSet<(String, String)>,
    /// Addresses that users have written to beside the account's own.
    pub(super) senders: Vec<String>,
    windows: HashMap<(String, String), Timestamp>,
    streaks: HashMap<(String, String), Streak>,
    pub(super) cookies: HashMap<(String, String, String), Cookies>,
    pub(super) templates: Vec<serde_json::Value>,
    pub(super) sender_settings: HashMap<String, serde_json::Value>,
    pub(super) number_settings: HashMap<String, BTreeMap<String, String>>,
    exchange_number: u64,
    exchange_bytes: usize,
    /// Changes when everything is forgotten: what began before it has nobody to report to.
    pub(super) generation: u64,
}

/// A file that Twilio has.
#[derive(Clone)]
pub(super) struct Hosted {
    pub(super) bytes: Arc<[u8]>,
    pub(super) content_type: String,
}

/// What a server asked to be told again, for four hours without traffic.
pub(super) struct Cookies {
    pub(super) values: BTreeMap<String, String>,
    pub(super) used: Timestamp,
}

struct Streak {
    count: u32,
    last: Timestamp,
}

impl State {
    pub(super) fn message(&self, sid: &str) -> Option<&Record> {
        self.messages
            .iter()
            .rev()
            .find(|message| message.sid == sid)
    }

    pub(super) fn message_mut(&mut self, sid: &str) -> Option<&mut Record> {
        self.messages
            .iter_mut()
            .rev()
            .find(|message| message.sid == sid)
    }

    pub(super) fn add(&mut self, message: Record) {
        if message.direction.is_in() {
            let pair = (message.sender.clone(), message.user.clone());
            self.windows.insert(pair, message.at);
        }
        if self.messages.len() >= MOST_MESSAGES {
            self.messages.drain(..MOST_MESSAGES / 10);
        }
        self.messages.push(message);
    }

    pub(super) fn host(&mut self, sid: &str, hosted: Hosted) {
        self.media_bytes += hosted.bytes.len();
        self.media.insert(sid.to_owned(), hosted);
        self.media_order.push_back(sid.to_owned());
        while self.media_bytes > MOST_MEDIA_BYTES
            && let Some(oldest) = self.media_order.pop_front()
        {
            let forgotten = self.media.remove(&oldest);
            self.media_bytes -= forgotten.map_or(0, |hosted| hosted.bytes.len());
        }
    }

    pub(super) fn record(&mut self, mut exchange: Exchange) -> Exchange {
        self.exchange_number += 1;
        exchange.id = format!("ex{}", self.exchange_number);
        self.exchange_bytes += exchange.size();
        self.exchanges.push_back(exchange.clone());
        while self.exchanges.len() > MOST_EXCHANGES || self.exchange_bytes > MOST_EXCHANGE_BYTES {
            let Some(oldest) = self.exchanges.pop_front() else {
                break;
            };
            self.exchange_bytes -= oldest.size();
        }
        exchange
    }

    pub(super) fn write_down(&mut self, entry: Entry) {
        if self.debugger.len() >= MOST_ENTRIES {
            self.debugger.pop_front();
        }
        self.debugger.push_back(entry);
    }

    /// Whether a free text may go to a user of WhatsApp.
    pub(super) fn window_is_open(&self, sender: &str, user: &str, now: Timestamp) -> bool {
        let pair = (sender.to_owned(), user.to_owned());
        self.windows
            .get(&pair)
            .is_some_and(|last| last.checked_add(WINDOW).is_ok_and(|closes| now < closes))
    }

    /// Counts replies that follow each other closely; true when there are more than Twilio takes for a conversation (14107).
    pub(super) fn is_reply_loop(&mut self, sender: &str, user: &str, now: Timestamp) -> bool {
        const CLOSE: SignedDuration = SignedDuration::from_secs(30);
        const MOST: u32 = 15;
        let pair = (sender.to_owned(), user.to_owned());
        let streak = self.streaks.entry(pair).or_insert(Streak {
            count: 0,
            last: now,
        });
        streak.count = if now.duration_since(streak.last) < CLOSE {
            streak.count + 1
        } else {
            1
        };
        streak.last = now;
        streak.count == MOST + 1
    }

    /// The address that a user with this business-scoped id writes from.
    pub(super) fn phone_of(&self, id: &str) -> Option<String> {
        let address = Address::parse(id);
        if address.identity() != Identity::BusinessScopedId {
            return None;
        }
        let mut users = self
            .messages
            .iter()
            .rev()
            .map(|message| message.user.as_str());
        let found = users.find(|user| external_user_id(&Address::parse(*user)) == id);
        found.map(str::to_owned)
    }

    /// The sender that a user last talked with.
    pub(super) fn latest_sender(&self, user: &str) -> Option<&str> {
        let mut messages = self.messages.iter().rev();
        let latest = messages.find(|message| message.user == user);
        latest.map(|message| message.sender.as_str())
    }

    /// What the phone got because of a message: its answers, and what came by REST meanwhile.
    pub(super) fn shown_since(&self, message: &Record, before: &HashSet<String>) -> Vec<&Record> {
        let shown = |reply: &&Record| {
            reply.user == message.user
                && reply.direction != Direction::In
                && reply.is_on_the_phone()
                && !before.contains(&reply.sid)
                && reply
                    .in_reply_to
                    .as_ref()
                    .is_none_or(|sid| *sid == message.sid)
        };
        self.messages.iter().filter(shown).collect()
    }

    /// The SIDs of what a user has been sent so far.
    pub(super) fn sent_to(&self, user: &str) -> HashSet<String> {
        let sent = self
            .messages
            .iter()
            .filter(|message| message.user == user && message.direction != Direction::In);
        sent.map(|message| message.sid.clone()).collect()
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        *self = Self {
            generation: self.generation + 1,
            exchange_number: self.exchange_number,
            ..Self::default()
        };
    }
}
