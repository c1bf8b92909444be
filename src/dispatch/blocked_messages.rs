//! Blocked messages: the guard counts each message, and a blocked one is logged.

use super::guard::{BlockReason, Guard};
use crate::message::InboundMessage;
use crate::store::Claim;
use crate::telemetry::metrics::Metrics;

/// Counts a message, and returns whether the guard blocks it. Logs a blocked one.
pub(super) fn apply_guard(
    guard: &Guard,
    metrics: &Metrics,
    claim: Claim,
    message: &InboundMessage,
) -> bool {
    let Some(reason) = guard.count_message(claim, message) else {
        return false;
    };
    metrics.message_blocked(reason.as_str());
    let (message_sid, user) = (message.message_sid, &message.from);
    match reason {
        BlockReason::Loop => {
            tracing::error!(%message_sid, ?user, "a reply loop: the user seems to be a bot that replies to ours; the conversation is muted for a minute");
        }
        BlockReason::Muted => {
            // Not throttled, since it is a debug line.
            tracing::debug!(%message_sid, ?user, "blocked a message: the conversation is muted after a reply loop");
        }
        BlockReason::Rate => {
            if let Some(suppressed) = guard.rate_warnings.try_log() {
                tracing::warn!(%message_sid, ?user, suppressed, "blocked a message: its user has sent more than guard.messages_per_user_per_minute");
            }
        }
        BlockReason::OwnNumber => {
            if let Some(suppressed) = guard.own_number_warnings.try_log() {
                tracing::warn!(%message_sid, ?user, suppressed, "blocked a message: its author is one of your own senders");
            }
        }
    }
    true
}
