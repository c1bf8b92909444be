//! Events for the service at `handler.events_url`: their types, and the data of each as JSON.
//!
//! The data of `message.received` is the message as a forwarded one, which the module `forward` writes.

use serde::Serialize;

use super::conversations::{ConsentAction, ConsentRecord, ConsentScope};
use crate::error_code::ErrorCode;
use crate::sid::MessageSid;

/// Type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A message of a conversation that is handed off.
    MessageReceived,
    /// A message of the bot has another state.
    MessageStatus,
    /// A message of a user got no reply of the bot, or a message of the bot failed.
    MessageFailed,
    /// A user's consent was recorded.
    ConsentChanged,
    /// A conversation was handed off.
    HandoffStarted,
    /// A handoff has ended.
    HandoffEnded,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 6] = [
        Self::MessageReceived,
        Self::MessageStatus,
        Self::MessageFailed,
        Self::ConsentChanged,
        Self::HandoffStarted,
        Self::HandoffEnded,
    ];

    /// Returns the name, as stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageReceived => "message.received",
            Self::MessageStatus => "message.status",
            Self::MessageFailed => "message.failed",
            Self::ConsentChanged => "consent.changed",
            Self::HandoffStarted => "handoff.started",
            Self::HandoffEnded => "handoff.ended",
        }
    }

    /// Parses the name that [`as_str`](Self::as_str) returns.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

// The structs below are a public format, documented in docs/src/reference/events.md: do not rename or remove fields.
// They have no `Debug`: they contain addresses.

/// Data of `message.status` and `message.failed`.
#[derive(Serialize)]
pub(super) struct MessageEventData<'a> {
    /// ID of an outbound message; none for a message of a user, and for one that is not in the outbox.
    pub(super) id: Option<i64>,
    pub(super) sid: Option<&'a str>,
    pub(super) direction: &'static str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) state: &'a str,
    pub(super) error_code: Option<u32>,
    pub(super) error_meaning: Option<&'a str>,
}

impl MessageEventData<'_> {
    pub(super) const INBOUND: &'static str = "inbound";
    pub(super) const OUTBOUND: &'static str = "outbound";
}

/// Returns the meaning of Twilio's error code, or else the reason that replyhook gives.
pub(super) fn error_meaning(code: Option<u32>, reason: Option<&str>) -> Option<&str> {
    code.and_then(|code| ErrorCode(code).meaning()).or(reason)
}

/// Data of `consent.changed`.
#[derive(Serialize)]
struct ConsentEventData<'a> {
    address: &'a str,
    sender: Option<&'a str>,
    service: Option<&'a str>,
    status: &'static str,
    change: &'static str,
    source: &'static str,
    evidence: Option<&'a str>,
    note: Option<&'a str>,
    at: String,
}

/// Data of `handoff.started` and `handoff.ended`.
#[derive(Serialize)]
pub(super) struct HandoffEventData<'a> {
    pub(super) address: &'a str,
    pub(super) sender: &'a str,
    /// URL that messages are redirected to; none if the bot is silent.
    pub(super) url: Option<&'a str>,
    /// Time from which the bot replies again.
    pub(super) until: String,
    pub(super) reason: &'static str,
}

/// Returns the data of `consent.changed`; `None` for a record that changes no consent by itself.
pub(super) fn consent_data(record: &ConsentRecord) -> Option<String> {
    let status = match record.action {
        ConsentAction::OptOut => "opted_out",
        ConsentAction::OptIn | ConsentAction::Resume => "opted_in",
        ConsentAction::Merge | ConsentAction::Split => return None,
    };
    let (sender, service) = match &record.scope {
        ConsentScope::Sender(sender) => (Some(sender.as_str()), None),
        ConsentScope::Service(service) => (None, Some(service.as_str())),
        ConsentScope::Account(_) => return None,
    };
    Some(to_json(&ConsentEventData {
        address: record.user.as_str(),
        sender,
        service,
        status,
        change: record.action.as_str(),
        source: record.source.as_str(),
        evidence: record.evidence.as_ref().map(MessageSid::as_str),
        note: record.note.as_deref(),
        at: record.at.to_string(),
    }))
}

/// Writes the data of an event as JSON.
pub(super) fn to_json(data: &impl Serialize) -> String {
    // Cannot fail: the fields are strings and numbers.
    serde_json::to_string(data).unwrap_or_default()
}
