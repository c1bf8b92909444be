//! Conversations that somebody else answers: a bot has handed them over, to a Studio flow or to people behind one.

use std::fmt;

use jiff::Timestamp;

use super::Outcome;
use crate::address::Address;

/// What a message's answer makes of its conversation's hand-over, in the same transaction.
///
/// A bot makes one with [`Reply::hand_over`](crate::Reply::hand_over).
#[derive(Clone, PartialEq, Eq)]
pub enum HandOverChange {
    /// From here on its messages go to this URL, until then.
    Begin {
        /// Where Twilio is redirected to.
        to: String,
        /// When the bot answers again.
        until: Timestamp,
    },
    /// Another message has gone there: it lasts until then, unless it was taken back meanwhile.
    Continue {
        /// When the bot answers again.
        until: Timestamp,
    },
}

impl HandOverChange {
    /// Where it goes to, if it begins, and until when. In µs, as it is stored.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn columns(&self) -> (Option<&str>, i64) {
        match self {
            Self::Begin { to, until } => (Some(to), until.as_microsecond()),
            Self::Continue { until } => (None, until.as_microsecond()),
        }
    }
}

/// Which conversations are handed over, and the way back. They begin with an answer:
/// [`Ending::hand_over`](super::Ending::hand_over).
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, HandOvers, Store, sqlite::SqliteStore};
/// use replyhook::{Clock, SystemClock};
///
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// let ended = store.take_back(None, &"whatsapp:+15550001111".into(), SystemClock.now()).await?;
/// assert_eq!(ended, 0, "nobody had this user");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError).
pub trait HandOvers: Send + Sync {
    /// Where a conversation's messages go, if it is handed over.
    fn handed_over(&self, conversation: i64, now: Timestamp) -> Outcome<'_, Option<String>>;

    /// Lets the bot answer a user again: in the conversation with one sender of ours, or in all. Returns how many were handed
    /// over.
    fn take_back(&self, us: Option<&Address>, user: &Address, now: Timestamp) -> Outcome<'_, u64>;
}

/// The URL may carry what is nobody's business.
impl fmt::Debug for HandOverChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin { .. } => "Begin(…)",
            Self::Continue { .. } => "Continue(…)",
        })
    }
}
