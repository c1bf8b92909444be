//! Mutable state of the emulator. [`Engine`](super::engine::Engine) guards it with one lock, which is never held across
//! an `.await`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::content::stored_content::StoredContent;
use super::control_action::ControlAction;
use super::faults::Faults;
use super::record::{DebuggerEntry, Direction, Exchange, Record};
use super::webhook_params::external_user_id;
use replyhook_core::address::{Address, Channel, Identity};
use replyhook_core::message::MessageStatus;

// The limits bound the memory of an emulator that runs for days. Beyond them the oldest entries are dropped.
const MAX_MESSAGES: usize = 20_000;
const MAX_EXCHANGES: usize = 5_000;
const MAX_DEBUGGER_ENTRIES: usize = 1_000;
const MAX_ACTIONS: usize = 5_000;
const MAX_CONTENTS: usize = 10_000;
const MAX_STORED_MEDIA_BYTES: usize = 256 * 1024 * 1024;
const MAX_EXCHANGE_BYTES: usize = 128 * 1024 * 1024;

/// Length of the customer service window (WhatsApp), from the user's last message. Exact, without a safety margin.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

#[derive(Default)]
pub(super) struct EmulatorState {
    pub(super) messages: Vec<Record>,
    media: HashMap<String, StoredMedia>,
    media_order: VecDeque<String>,
    media_bytes: usize,
    pub(super) exchanges: VecDeque<Exchange>,
    pub(super) debugger: VecDeque<DebuggerEntry>,
    pub(super) faults: Faults,
    /// Pairs of sender and user, from [`block_key`], where the user has sent STOP.
    pub(super) blocked: HashSet<(String, String)>,
    /// Senders that users have written to, other than [`SENDERS`](super::SENDERS).
    pub(super) senders: Vec<String>,
    /// Time of the last inbound message, by sender and user.
    last_inbound: HashMap<(String, String), Timestamp>,
    streaks: HashMap<(String, String), Streak>,
    pub(super) cookies: HashMap<(String, String, String), Cookies>,
    /// Templates, oldest first.
    pub(super) contents: Vec<StoredContent>,
    /// Position of the template made last.
    content_position: u64,
    pub(super) sender_settings: HashMap<String, serde_json::Value>,
    pub(super) number_settings: HashMap<String, BTreeMap<String, String>>,
    /// Settings of Messaging Services that were changed, by SID.
    pub(super) service_settings: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// Calls that change conditions, each with the position of the message before it.
    pub(super) actions: VecDeque<(u64, ControlAction)>,
    /// Position of the message added last.
    last_position: u64,
    /// Number of refused calls of `POST Messages`.
    pub(super) refused_messages: u64,
    exchange_number: u64,
    exchange_bytes: usize,
    /// Number of resets. Tasks that started before a reset compare it and discard their results.
    pub(super) generation: u64,
}

/// Content of a media file stored by the emulator.
#[derive(Clone)]
pub(super) struct StoredMedia {
    pub(super) bytes: Arc<[u8]>,
    pub(super) content_type: String,
}

/// Cookies that a webhook set. They expire four hours after their last use.
pub(super) struct Cookies {
    pub(super) values: BTreeMap<String, String>,
    pub(super) last_used: Timestamp,
}

/// Number of replies in quick succession from one sender to one user.
struct Streak {
    count: u32,
    last: Timestamp,
}

/// Returns the key of a block: the sender, and the user's bare number, which SMS, MMS and RCS share.
// Not the service: each emulated sender is on one channel and belongs to no service.
pub(super) fn block_key(sender: &str, user: &str) -> (String, String) {
    let address = Address::parse(user);
    let user = match address.channel() {
        Channel::Rcs => address.id(),
        _ => user,
    };
    (sender.to_owned(), user.to_owned())
}

impl EmulatorState {
    // Newest first: an inbound message can reuse a MessageSid, and the latest record counts.
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

    pub(super) fn add_message(&mut self, mut message: Record) {
        self.last_position += 1;
        message.position = self.last_position;
        if message.direction.is_in() {
            let pair = (message.sender.clone(), message.user.clone());
            self.last_inbound.insert(pair, message.at);
        }
        // A tenth each time: draining the front moves all other elements, so it must be rare.
        if self.messages.len() >= MAX_MESSAGES {
            self.messages.drain(..MAX_MESSAGES / 10);
        }
        self.messages.push(message);
    }

    pub(super) fn add_content(&mut self, mut content: StoredContent) {
        self.content_position += 1;
        content.position = self.content_position;
        if self.contents.len() >= MAX_CONTENTS {
            self.contents.drain(..MAX_CONTENTS / 10);
        }
        self.contents.push(content);
    }

    /// Cancels a message that is not on its way yet. Returns it, or `None` if it is too late or unknown.
    pub(super) fn cancel_message(&mut self, sid: &str, now: Timestamp) -> Option<Record> {
        let message = self.message_mut(sid)?;
        // Check and set under one lock: the task that sends the message may run concurrently. `set_status` and
        // `accept_scheduled` stop when they see this status.
        if !matches!(
            message.status,
            MessageStatus::Scheduled | MessageStatus::Accepted
        ) {
            return None;
        }
        message.status = MessageStatus::Canceled;
        message.updated_at = now;
        Some(message.clone())
    }

    pub(super) fn media(&self, sid: &str) -> Option<&StoredMedia> {
        self.media.get(sid)
    }

    pub(super) fn add_media(&mut self, sid: &str, media: StoredMedia) {
        self.media_bytes += media.bytes.len();
        self.media.insert(sid.to_owned(), media);
        self.media_order.push_back(sid.to_owned());
        while self.media_bytes > MAX_STORED_MEDIA_BYTES
            && let Some(oldest) = self.media_order.pop_front()
        {
            self.delete_media(&oldest);
        }
    }

    pub(super) fn delete_media(&mut self, sid: &str) {
        if let Some(media) = self.media.remove(sid) {
            self.media_bytes -= media.bytes.len();
            self.media_order.retain(|other| other != sid);
        }
    }

    pub(super) fn add_exchange(&mut self, mut exchange: Exchange) -> Exchange {
        self.refused_messages += u64::from(exchange.is_refused_message());
        self.exchange_number += 1;
        exchange.id = format!("ex{}", self.exchange_number);
        self.exchange_bytes += exchange.size();
        self.exchanges.push_back(exchange.clone());
        while self.exchanges.len() > MAX_EXCHANGES || self.exchange_bytes > MAX_EXCHANGE_BYTES {
            let Some(oldest) = self.exchanges.pop_front() else {
                break;
            };
            self.exchange_bytes -= oldest.size();
        }
        exchange
    }

    pub(super) fn add_action(&mut self, action: ControlAction) {
        if self.actions.len() >= MAX_ACTIONS {
            self.actions.pop_front();
        }
        self.actions.push_back((self.last_position, action));
    }

    pub(super) fn add_debugger_entry(&mut self, entry: DebuggerEntry) {
        if self.debugger.len() >= MAX_DEBUGGER_ENTRIES {
            self.debugger.pop_front();
        }
        self.debugger.push_back(entry);
    }

    /// Returns whether the customer service window of a WhatsApp conversation is open.
    pub(super) fn is_window_open(&self, sender: &str, user: &str, now: Timestamp) -> bool {
        let pair = (sender.to_owned(), user.to_owned());
        self.last_inbound
            .get(&pair)
            .is_some_and(|last| last.checked_add(WINDOW).is_ok_and(|closes| now < closes))
    }

    /// Counts a reply, and returns whether it is the first one over Twilio's limit for reply loops (14107).
    pub(super) fn count_reply(&mut self, sender: &str, user: &str, now: Timestamp) -> bool {
        // Twilio: more than 30 replies between two numbers, each less than 30 s after the one before.
        const MAX_REPLY_GAP: SignedDuration = SignedDuration::from_secs(30);
        const MAX_STREAK: u32 = 30;
        let pair = (sender.to_owned(), user.to_owned());
        let streak = self.streaks.entry(pair).or_insert(Streak {
            count: 0,
            last: now,
        });
        streak.count = if now.duration_since(streak.last) < MAX_REPLY_GAP {
            streak.count + 1
        } else {
            1
        };
        streak.last = now;
        // Equal, not greater: a loop gets one debugger entry, however long it runs.
        streak.count == MAX_STREAK + 1
    }

    /// Returns the address of the user whose `ExternalUserId` is this business-scoped user ID.
    pub(super) fn find_user_by_external_id(&self, id: &str) -> Option<String> {
        let address = Address::parse(id);
        if address.identity() != Identity::BusinessScopedId {
            return None;
        }
        let mut users = self
            .messages
            .iter()
            .rev()
            .map(|message| message.user.as_str());
        let user = users.find(|user| external_user_id(&Address::parse(*user)) == id);
        user.map(str::to_owned)
    }

    /// Returns the sender of the user's latest message in either direction.
    pub(super) fn latest_sender(&self, user: &str) -> Option<&str> {
        let mut messages = self.messages.iter().rev();
        let latest = messages.find(|message| message.user == user);
        latest.map(|message| message.sender.as_str())
    }

    /// Returns the messages that the phone received since `earlier_sids` was collected: the TwiML replies to `message`,
    /// and all messages sent to its user via the REST API or by Twilio itself.
    pub(super) fn received_since(
        &self,
        message: &Record,
        earlier_sids: &HashSet<String>,
    ) -> Vec<&Record> {
        let is_new_reply = |reply: &&Record| {
            reply.user == message.user
                && reply.direction != Direction::In
                && reply.is_shown_on_phone()
                && !earlier_sids.contains(&reply.sid)
                // REST messages name no inbound message. TwiML replies to another inbound message do not count.
                && reply
                    .in_reply_to
                    .as_ref()
                    .is_none_or(|sid| *sid == message.sid)
        };
        self.messages.iter().filter(is_new_reply).collect()
    }

    /// Returns the SIDs of all messages sent to a user.
    pub(super) fn outbound_sids(&self, user: &str) -> HashSet<String> {
        let outbound = self
            .messages
            .iter()
            .filter(|message| message.user == user && message.direction != Direction::In);
        outbound.map(|message| message.sid.clone()).collect()
    }

    /// Deletes everything.
    pub(super) fn reset(&mut self) {
        *self = Self {
            generation: self.generation + 1,
            // Continue the numbering: IDs and page tokens from before the reset must not match new records.
            exchange_number: self.exchange_number,
            last_position: self.last_position,
            content_position: self.content_position,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_media_frees_space_for_new_files() {
        let mut state = EmulatorState::default();
        // Shared: one buffer of 64 MiB instead of one for each file.
        let bytes: Arc<[u8]> = Arc::from(vec![0_u8; MAX_STORED_MEDIA_BYTES / 4]);
        let add = |state: &mut EmulatorState, sid: &str| {
            let media = StoredMedia {
                bytes: bytes.clone(),
                content_type: "image/png".to_owned(),
            };
            state.add_media(sid, media);
        };
        for number in 0..8 {
            let sid = format!("ME{number}");
            add(&mut state, &sid);
            state.delete_media(&sid);
        }
        assert_eq!((state.media_bytes, state.media_order.len()), (0, 0));
        for sid in ["MEa", "MEb", "MEc", "MEd", "MEe"] {
            add(&mut state, sid);
        }
        assert!(state.media("MEa").is_none(), "the oldest file is dropped");
        assert!(state.media("MEb").is_some() && state.media("MEe").is_some());
    }

    // The check and the change are one step, so that of two concurrent calls only one succeeds.
    #[test]
    fn message_is_canceled_once_and_only_before_sending() {
        let mut state = EmulatorState::default();
        let now = Timestamp::UNIX_EPOCH;
        let text = |text: &str| text.to_owned();
        for (sid, status) in [
            ("SM1", MessageStatus::Scheduled),
            ("SM2", MessageStatus::Sent),
        ] {
            state.add_message(Record {
                status,
                ..Record::inbound(text(sid), text("+1"), text("+2"), text("later"), now)
            });
        }
        let canceled = state.cancel_message("SM1", now).unwrap();
        assert_eq!(canceled.status, MessageStatus::Canceled);
        for sid in ["SM1", "SM2", "SM3"] {
            assert!(state.cancel_message(sid, now).is_none(), "{sid}");
        }
        assert_eq!(state.message("SM2").unwrap().status, MessageStatus::Sent);
    }
}
