//! Handoffs: conversations in which another system replies, such as a Studio flow or the agents behind one.

use std::fmt;
use std::time::Duration;

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
        /// The handoff.
        handoff: ActiveHandoff,
        /// Time from which the bot replies again.
        until: Timestamp,
    },
    /// Extends the handoff after a further message, unless an operator or the bot has ended the handoff.
    Continue {
        /// Time from which the bot replies again.
        until: Timestamp,
        /// True if the message should be redirected; false if the bot is silent.
        redirects: bool,
    },
}

/// Handoff of a conversation that is active.
// `Debug` hides the URL, which may contain personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ActiveHandoff {
    /// URL that messages are redirected to; `None` if the bot is silent.
    pub url: Option<String>,
    /// Time without a message from the user after which it ends.
    pub ttl: Duration,
}

impl HandoffChange {
    /// Returns URL and TTL of a handoff that begins, and its end in microseconds, as stored.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn columns(&self) -> (Option<(&str, i64)>, i64) {
        match self {
            Self::Begin { handoff, until } => (Some(handoff.columns()), until.as_microsecond()),
            Self::Continue { until, .. } => (None, until.as_microsecond()),
        }
    }

    /// Returns whether the message should be redirected.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn is_redirect(&self) -> bool {
        match self {
            Self::Begin { handoff, .. } => handoff.url.is_some(),
            Self::Continue { redirects, .. } => *redirects,
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl ActiveHandoff {
    /// Returns URL and TTL in microseconds, as stored. The URL of a silent bot is empty.
    pub(super) fn columns(&self) -> (&str, i64) {
        // A century: the end, which is the present time and this one, must be within the range of times.
        const MAX_MICROS: i64 = 100 * 365 * 24 * 3600 * 1_000_000;
        let micros = i64::try_from(self.ttl.as_micros()).unwrap_or(MAX_MICROS);
        let url = self.url.as_deref().unwrap_or_default();
        (url, micros.min(MAX_MICROS))
    }

    pub(super) fn from_columns(url: String, ttl_micros: i64) -> Self {
        Self {
            url: Some(url).filter(|url| !url.is_empty()),
            ttl: Duration::from_micros(ttl_micros.unsigned_abs()),
        }
    }
}

/// Handoffs of conversations. A reply starts one with [`Completion::handoff`](super::journal::Completion::handoff).
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Handoffs: Send + Sync {
    /// Returns the handoff of a conversation, if it is handed off.
    fn handoff(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<ActiveHandoff>>;

    /// Starts handoffs of a user, with one sender or with all senders that the user has written to, and returns their
    /// number. They replace those that are active.
    fn begin_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        handoff: ActiveHandoff,
        now: Timestamp,
    ) -> StoreFuture<'_, u64>;

    /// Returns the active handoffs of a user, those that end last before the others.
    fn handoffs_of(&self, user: &Address, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>>;

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
    /// The handoff.
    pub handoff: ActiveHandoff,
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

impl fmt::Debug for ActiveHandoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveHandoff")
            .field("is_silent", &self.url.is_none())
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
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
