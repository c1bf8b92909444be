//! What was said before, and where a context learns of it.

use std::fmt;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::HandlerError;
use crate::address::Address;

/// A conversation that is kept, as a handler's context asks for it.
pub(crate) trait Conversing: Send + Sync {
    /// What is remembered of it.
    fn remembered(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>>;

    /// The last so many texts before the message, oldest first.
    fn said(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Said>, HandlerError>>;

    /// Whether nothing came before the message.
    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>>;

    /// Lets the bot answer another user of the same sender again; returns whether that one was handed over.
    fn take_back(&self, _user: Address) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Shows the user that somebody types, where that can be shown.
    fn typing(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A text of a conversation; [`Context::history`](super::Context::history) gives them.
///
/// ```
/// use replyhook::handler::{Said, Speaker};
///
/// /// What a language model is told of a conversation.
/// fn transcript(history: &[Said]) -> String {
///     let line = |said: &Said| match said.by {
///         Speaker::User => format!("user: {}\n", said.text),
///         Speaker::Bot => format!("assistant: {}\n", said.text),
///     };
///     history.iter().map(line).collect()
/// }
/// # assert_eq!(transcript(&[]), "");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Said {
    /// Who said it.
    pub by: Speaker,
    /// What. A user's is untrusted, as a message's body is.
    pub text: String,
    /// When it came, or was ready.
    pub at: Timestamp,
}

/// Who said something.
///
/// In a transcript: see [`Said`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// The user.
    User,
    /// Your bot, or replyhook in its place, as with the answer to STOP.
    Bot,
}

/// Who and when, and no text.
impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said")
            .field("by", &self.by)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_text() {
        let said = Said {
            by: Speaker::User,
            text: "a secret".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        assert!(!format!("{said:?}").contains("secret"));
    }
}
