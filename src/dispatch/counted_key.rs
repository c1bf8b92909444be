//! Keys under which the guard counts messages.

/// Key of an entry of the guard's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CountedKey {
    Conversation(i64),
    /// User whose addresses links tie together, by [`Claim::user`](crate::store::Claim::user).
    User(i64),
    /// Hash of the account and of the author: of the number without its channel, or of another address.
    Author(u64),
}
