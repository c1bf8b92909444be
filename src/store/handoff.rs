//! Handoffs: conversations in which another system replies, such as a Studio flow or the agents behind one.

use std::fmt;

use jiff::Timestamp;

use super::future::StoreFuture;
use crate::address::Address;

/// Change of a conversation's handoff, committed together with the reply to a message.
///
/// A bot starts a handoff with [`Reply::handoff`](crate::Reply::handoff).
#[derive(Clone, PartialEq, Eq)]
pub enum HandoffChange {
    /// Starts a handoff, or replaces an active one.
    Begin {
        /// URL that Twilio is redirected to.
        to: String,
        /// Time from which the bot replies again.
        until: Timestamp,
    },
    /// Extends the handoff after a further message was redirected, unless an operator or the bot has ended the handoff.
    Continue {
        /// Time from which the bot replies again.
        until: Timestamp,
    },
}

impl HandoffChange {
    /// Returns the URL of a handoff that begins, and its end in microseconds, as stored.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn columns(&self) -> (Option<&str>, i64) {
        match self {
            Self::Begin { to, until } => (Some(to), until.as_microsecond()),
            Self::Continue { until } => (None, until.as_microsecond()),
        }
    }
}

/// Handoffs of conversations. A reply starts one with [`Completion::handoff`](super::journal::Completion::handoff).
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Handoffs: Send + Sync {
    /// Returns the URL that a conversation's messages are redirected to, if the conversation is handed off.
    fn handoff_url(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<String>>;

    /// Ends the handoffs of a user, with one sender or with all senders, and returns the number of ended handoffs.
    fn end_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        now: Timestamp,
    ) -> StoreFuture<'_, u64>;

    /// Returns up to `limit` active handoffs, those that end first before the others.
    fn active_handoffs(&self, limit: u32, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>>;
}

/// An active handoff, as an operator sees it.
///
/// See [`Handoffs`] for where it comes from.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandoffRow {
    /// The sender of the conversation.
    pub sender: Address,
    /// All addresses of the user that the sender knows.
    pub user: Vec<Address>,
    /// URL that messages are redirected to.
    pub url: String,
    /// Time from which the bot replies again.
    pub until: Timestamp,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl HandoffRow {
    /// Adds one address of a conversation. The addresses of one conversation come one after the other.
    pub(super) fn collect(rows: &mut Vec<(i64, Self)>, conversation: i64, row: Self) {
        match rows.last_mut() {
            Some((last, collected)) if *last == conversation => collected.user.extend(row.user),
            _ => rows.push((conversation, row)),
        }
    }
}

// Hides the user and the URL, which may contain personal data.
impl fmt::Debug for HandoffRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffRow")
            .field("sender", &self.sender)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

// Hides the URL, which may contain personal data.
impl fmt::Debug for HandoffChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin { .. } => "Begin(…)",
            Self::Continue { .. } => "Continue(…)",
        })
    }
}
