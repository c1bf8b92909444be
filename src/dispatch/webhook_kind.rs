//! Kinds of webhook calls.

use crate::message::FallbackCause;

/// Webhook by which a message came to its task.
#[derive(Debug, Clone)]
pub(crate) enum WebhookKind {
    Primary,
    /// The fallback webhook, which Twilio calls when the primary one failed.
    Fallback(FallbackCause),
    /// No webhook: the message was left in the store by an earlier request. The cause of a fallback call is not stored.
    Backlog,
}

impl WebhookKind {
    pub(super) fn is_fallback(&self) -> bool {
        matches!(self, Self::Fallback(_))
    }
}
