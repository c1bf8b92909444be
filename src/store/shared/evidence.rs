//! Evidence that addresses are of one user.

use crate::sid::MessageSid;
use crate::store::identity_kind::LinkKind;

/// Webhook or command that says that addresses are of one user.
pub(in crate::store) struct Evidence<'a> {
    /// Account, packed.
    pub(in crate::store) account: &'a [u8],
    /// Sender of the webhook; empty for a command.
    pub(in crate::store) sender: &'a str,
    pub(in crate::store) kind: LinkKind,
    pub(in crate::store) message: Option<MessageSid>,
    pub(in crate::store) note: Option<&'a str>,
    /// Time of the message.
    pub(in crate::store) at: i64,
    pub(in crate::store) time: EvidenceTime,
}

/// Time from which evidence is, in comparison with a split.
#[derive(Clone, Copy)]
pub(in crate::store) enum EvidenceTime {
    /// The time of the message, or of the command.
    Message,
    /// The message of the outbox with this ID.
    Outbound(i64),
    /// A status callback about a message that is not in the outbox.
    Unknown,
}
