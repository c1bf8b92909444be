//! Reports of dead messages, which neither Twilio nor the server retries.
//!
//! Each is logged and counted once, by the process that changed its row.

use super::dispatcher::Dispatcher;
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
                // `messages retry` cannot help, since it needs the content.
                tracing::error!(message_sid = %sid, reason, "a message never got a reply, and its content was deleted by age");
            }
            _ => {
                tracing::error!(message_sid = %sid, reason, "a message is dead: its user gets no reply unless you run `replyhook messages retry {sid}`");
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
