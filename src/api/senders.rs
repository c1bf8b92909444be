//! [`AllowedSenders`]: senders and Messaging Services that clients of the API may use.

use super::problem::ApiProblem;
use crate::store::ConsentScope;

/// Senders and Messaging Services of `outbound.senders`; without any, those that messages came to.
pub(crate) struct AllowedSenders(pub(crate) Vec<ConsentScope>);

impl AllowedSenders {
    /// Returns whether the list names a sender or service, or is empty.
    pub(super) fn may_have(&self, scope: &ConsentScope) -> bool {
        self.0.is_empty() || self.0.contains(scope)
    }
}

pub(super) fn unknown_sender(is_list_empty: bool) -> ApiProblem {
    if is_list_empty {
        return ApiProblem::rejected(
            "unknown_sender",
            "no message has come to this sender or Messaging Service",
            "add it to outbound.senders in the settings, or write to it once",
        );
    }
    ApiProblem::rejected(
        "unknown_sender",
        "outbound.senders does not have this sender or Messaging Service",
        "add it to outbound.senders in the settings",
    )
}
