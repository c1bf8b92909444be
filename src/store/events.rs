//! The queue of events for the service at `handler.events_url`.

use std::fmt;

use jiff::Timestamp;

use super::event_data::EventType;
use super::future::StoreFuture;
use super::redacted_params::RedactedParams;
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;

/// Event, claimed for its delivery.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClaimedEvent {
    /// ID in the store.
    pub id: i64,
    /// Type.
    pub kind: EventType,
    /// Time of the change.
    pub at: Timestamp,
    /// Number of the attempt to deliver it, counted from 1.
    pub attempt: u32,
    /// Content.
    pub data: EventContent,
}

/// Content of a [`ClaimedEvent`].
#[derive(Clone)]
pub enum EventContent {
    /// Data, as JSON.
    Json(String),
    /// A message from a user.
    Message(Box<EventMessage>),
}

/// Message that an event is about.
#[derive(Clone)]
#[non_exhaustive]
pub struct EventMessage {
    /// Account that received the message.
    pub account: AccountSid,
    /// SID of the message.
    pub sid: MessageSid,
    /// Sender that the user wrote to.
    pub sender: Address,
    /// Author of the message.
    pub user: Address,
    /// Auth token that verified the webhook.
    pub auth_token: AuthTokenKind,
    /// Attempt that processed the message.
    pub attempt: u32,
    /// Parameters of the webhook, form-encoded; `None` if retention has deleted them.
    pub params: Option<RedactedParams>,
    /// Time when the webhook arrived.
    pub received_at: Timestamp,
}

impl ClaimedEvent {
    /// Returns the name of the event for the service, which is the same for every delivery.
    pub fn name(&self) -> String {
        // An ID alone is not unique: after a database was replaced, an event of the new one could have it too.
        format!("evt_{}_{:x}", self.id, self.at.as_microsecond())
    }
}

// These implementations hide the content, which has addresses and texts.

impl fmt::Debug for EventContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json(_) => "Json(…)",
            Self::Message(_) => "Message(…)",
        })
    }
}

impl fmt::Debug for EventMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventMessage")
            .field("sid", &self.sid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClaimedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimedEvent")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Outcome of [`Events::claim_events`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ClaimedEvents {
    /// Claimed events, at most one of each user.
    pub events: Vec<ClaimedEvent>,
    /// Position of the next search; `None` if this one has come to the last user.
    pub next: Option<String>,
}

/// Outcome of [`Events::expire_events`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpiredEvents {
    /// Number of deleted events.
    pub dropped: u64,
    /// True if there is more to delete.
    pub has_more: bool,
}

/// Number of events that wait for delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStats {
    /// Number of events.
    pub pending: u64,
    /// Time of the oldest event.
    pub oldest: Option<Timestamp>,
}

/// Queue of events. Each is written in the transaction of the change that it reports, while recording is on.
///
/// Delivery is at least once, and the events of one user are delivered in their order.
///
/// # Errors
/// Every method that returns a future: [`StoreError`](super::error::StoreError).
pub trait Events: Send + Sync {
    /// Turns the recording of events on or off. It is off at first.
    fn record_events(&self, is_on: bool);

    /// Claims up to `limit` due events, each the oldest of its user. `running` are the events that this process delivers.
    ///
    /// The search starts behind the position `after`, and passes a limited number of users. An event whose message is
    /// handled again is deleted instead: the new attempt decides.
    fn claim_events(
        &self,
        after: &str,
        limit: usize,
        running: Vec<i64>,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedEvents>;

    /// Deletes an event that the service has taken.
    fn delete_event(&self, id: i64) -> StoreFuture<'_, ()>;

    /// Releases an event that the service has not taken, for another attempt from `not_before` on.
    fn retry_event(&self, id: i64, not_before: Timestamp) -> StoreFuture<'_, ()>;

    /// Deletes some of the events from before `created_before`, and ends handoffs whose time is over.
    fn expire_events(
        &self,
        created_before: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'_, ExpiredEvents>;

    /// Returns the number of events that wait for delivery.
    fn event_stats(&self) -> StoreFuture<'_, EventStats>;
}
