//! Reports of dead messages, which neither Twilio nor the server retries.
//!
//! Each is logged and counted once, by the process that changed its row.

use crate::sid::MessageSid;
use crate::store::{DeadMessage, DeadReason};
use crate::telemetry::metrics::Metrics;

/// Reports a message that became dead.
pub(super) fn report_dead(metrics: &Metrics, message: DeadMessage) {
    let DeadMessage { sid, reason } = message;
    metrics.dead_message(reason);
    let reason = reason.as_str();
    match message.reason {
        DeadReason::Expired => {
            // `messages retry` cannot help, since it needs the content.
            tracing::error!(message_sid = %sid, reason, "a message never got a reply, and its content was deleted by age");
        }
        _ => {
            tracing::error!(message_sid = %sid, reason, "a message is dead: its user gets no reply unless you run `replyhook messages retry {sid}`");
        }
    }
}

/// Reports messages whose content was deleted before they were answered.
pub(crate) fn report_expired(metrics: &Metrics, unanswered: &[MessageSid]) {
    for sid in unanswered {
        report_dead(
            metrics,
            DeadMessage {
                sid: *sid,
                reason: DeadReason::Expired,
            },
        );
    }
}
