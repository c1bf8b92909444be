//! [`ContentDelivery`]: the conditions under which content reaches a user.

use super::rules::ContentRefusal;
use super::stored_content::ContentApproval;
use replyhook_core::address::Channel;
use replyhook_core::error_code::ErrorCode;

/// Conditions for the delivery of a message's content.
#[derive(Clone)]
pub(crate) struct ContentDelivery {
    pub(crate) sid: String,
    pub(crate) approval: ContentApproval,
    /// True if the type may open a WhatsApp conversation once it is approved.
    pub(crate) opens_conversation: bool,
    pub(crate) refusal: Option<ContentRefusal>,
}

impl ContentDelivery {
    /// Returns the reason why the channel does not deliver the content now.
    pub(crate) fn rejection(
        &self,
        channel: &Channel,
        is_window_open: bool,
    ) -> Option<ContentRefusal> {
        let reject = |code: u32, problem: &str| Some((ErrorCode(code), problem.to_owned()));
        match (channel, self.approval) {
            (Channel::WhatsApp, ContentApproval::Rejected) => {
                reject(63040, "WhatsApp has rejected the template")
            }
            (Channel::WhatsApp, ContentApproval::Paused) => {
                reject(63041, "WhatsApp has paused the template")
            }
            (Channel::WhatsApp, approval) if !is_window_open => {
                let is_allowed = approval == ContentApproval::Approved && self.opens_conversation;
                if is_allowed {
                    self.refusal.clone()
                } else {
                    reject(
                        63016,
                        "the window is closed, and only an approved template can open a conversation",
                    )
                }
            }
            // Messenger has no approved templates.
            (Channel::Messenger, _) if !is_window_open => reject(63016, "the window is closed"),
            _ => self.refusal.clone(),
        }
    }
}
