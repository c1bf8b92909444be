//! Kinds of requests that arrive at a webhook.

use super::probe;
use super::response::ErrorResponse;
use super::webhooks::Webhooks;
use crate::form::FormParams;
use crate::message::ConversationEvent;
use crate::signature::SignedForm;

/// A verified request to `/webhook`, by its kind, with its parameters.
pub(super) enum WebhookEvent {
    /// An event of Twilio Conversations.
    Conversation(FormParams),
    /// A status callback.
    Status(FormParams),
    /// An inbound message.
    Message(FormParams),
}

impl WebhookEvent {
    /// Reads the kind from the parameters.
    pub(super) fn classify(params: FormParams) -> Self {
        // Before messages: an event of Twilio Conversations can have a `MessageSid` and a `Body` too.
        if ConversationEvent::is_one(&params) {
            Self::Conversation(params)
        } else if has_status(&params) {
            // A status callback whose URL is configured as `/webhook`. The bot must not reply to it.
            Self::Status(params)
        } else {
            Self::Message(params)
        }
    }
}

impl Webhooks {
    /// Returns the parameters of a verified request; `None` for a probe, which is neither stored nor handled.
    ///
    /// # Errors
    /// [`ErrorResponse::NotAForm`].
    pub(super) fn read_params(
        &self,
        form: SignedForm,
    ) -> Result<Option<FormParams>, ErrorResponse> {
        // Before anything is parsed: a probe has no `MessageSid` and would be rejected as a malformed message.
        if probe::is_probe(form.params()) {
            return Ok(None);
        }
        self.params(form).map(Some)
    }
}

fn has_status(params: &FormParams) -> bool {
    params
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
}
