//! Conversation history, and the interface through which a [`Context`](super::Context) reaches its conversation.

use std::fmt;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::address::Address;
use replyhook_core::HandlerError;

/// A stored conversation, as a handler's context uses it.
// A trait, because this module knows neither the store nor the REST client: the dispatcher implements it with both, and
// the examples of a rules file implement it in memory.
pub(crate) trait ConversationAccess: Send + Sync {
    /// Loads the state record, a JSON text.
    fn load_state(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>>;

    /// Returns the last `limit` texts before the message, oldest first.
    fn history(&self, limit: usize) -> BoxFuture<'_, Result<Vec<HistoryEntry>, HandlerError>>;

    /// Returns whether the message is the first one of its conversation.
    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>>;

    /// Ends the handoff of a user of the same sender. Returns whether the user was handed off.
    fn end_handoff(&self, _user: Address) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Shows a typing indicator to the user, on channels that have one.
    fn typing(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One text of a conversation, from [`Context::history`](super::Context::history).
///
/// ```
/// use replyhook::handler::{HistoryEntry, Role};
///
/// /// Formats a conversation for a language model.
/// fn transcript(history: &[HistoryEntry]) -> String {
///     let line = |entry: &HistoryEntry| match entry.role {
///         Role::User => format!("user: {}\n", entry.text),
///         Role::Bot => format!("assistant: {}\n", entry.text),
///     };
///     history.iter().map(line).collect()
/// }
/// # assert_eq!(transcript(&[]), "");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The author of the text.
    pub role: Role,
    /// The text. A user's text is untrusted, like a message's body.
    pub text: String,
    /// The time at which the user's message arrived, or at which the reply was ready.
    pub at: Timestamp,
}

/// The author of a [`HistoryEntry`].
///
/// See [`HistoryEntry`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The user.
    User,
    /// Your bot, or replyhook on its behalf, as in the confirmation of STOP.
    Bot,
}

// By hand, so that a logged history never contains what users write.
impl fmt::Debug for HistoryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryEntry")
            .field("role", &self.role)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_text() {
        let entry = HistoryEntry {
            role: Role::User,
            text: "a secret".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        assert!(!format!("{entry:?}").contains("secret"));
    }
}
