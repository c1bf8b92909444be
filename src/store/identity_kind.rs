//! Kinds of evidence that two addresses are of one user.

/// Evidence that ties two addresses to one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// One webhook named both: `From` and `ExternalUserId`.
    SameForm,
    /// A status callback named both: `To` and `ExternalUserId`.
    StatusCallback,
    /// `ParentExternalUserId` of a webhook or status callback.
    ParentId,
    /// An operator recorded it.
    Operator,
    /// Both were tied to an address of another channel that was split off. They share opt-outs, and no conversation.
    SplitRemainder,
}

impl LinkKind {
    /// Returns the name, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameForm => "same_form",
            Self::StatusCallback => "status_callback",
            Self::ParentId => "parent_id",
            Self::Operator => "operator",
            Self::SplitRemainder => "split_remainder",
        }
    }

    /// Parses the name that [`as_str`](Self::as_str) returns.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::SameForm,
            Self::StatusCallback,
            Self::ParentId,
            Self::Operator,
            Self::SplitRemainder,
        ];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}
