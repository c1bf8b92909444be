//! Dead messages: neither Twilio nor the server retries them. Each is in the log and counted once, by the process that changed its row.

use super::Dispatcher;
use crate::sid::MessageSid;
use crate::store::{DeadMessage, DeadReason};

impl Dispatcher {
    /// Reports a message that became dead.
    pub(super) fn report_dead(&self, message: DeadMessage) {
        let DeadMessage { sid, reason } = message;
        self.metrics.dead_message(reason);
        let reason = reason.as_str();
        match message.reason {
            DeadReason::Expired => {
                tracing::error!(message_sid = %sid, reason, "a message was never answered, and its content is deleted by age");
            }
            _ => {
                tracing::error!(message_sid = %sid, reason, "a message is dead: its user gets no answer unless `replyhook messages retry` handles it again");
            }
        }
    }

    /// Reports messages whose content was deleted before they were answered.
    pub(crate) fn report_expired(&self, unanswered: &[MessageSid]) {
        for sid in unanswered {
            self.report_dead(DeadMessage {
                sid: *sid,
                reason: DeadReason::Expired,
            });
        }
    }
}
