//! Reasons for which the guard blocks a message.

/// Reason for which a message is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockReason {
    OwnNumber,
    /// The message that completes a loop.
    Loop,
    /// A message of a muted conversation.
    Muted,
    Rate,
    /// A message of a user in `guard.block`.
    Blocked,
    /// A message of a user who is not in `guard.allow`.
    NotAllowed,
}

impl BlockReason {
    /// Value of the metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OwnNumber => "own_number",
            Self::Loop => "loop",
            Self::Muted => "muted",
            Self::Rate => "rate",
            Self::Blocked => "blocked",
            Self::NotAllowed => "not_allowed",
        }
    }

    /// Reason that the journal records for the message.
    pub(super) fn explanation(self) -> &'static str {
        match self {
            Self::OwnNumber => "the bot did not get it: its author is one of your own senders",
            Self::Loop => "the bot did not get it: it completed a reply loop",
            Self::Muted => "the bot did not get it: the conversation was muted after a reply loop",
            Self::Rate => {
                "the bot did not get it: its user sent more than guard.messages_per_user_per_minute"
            }
            Self::Blocked => "the bot did not get it: its user is in guard.block",
            Self::NotAllowed => "the bot did not get it: its user is not in guard.allow",
        }
    }
}
