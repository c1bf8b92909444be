//! Kinds of requests that arrive at a webhook.

use super::response::ErrorResponse;
use super::{Webhooks, probe};
use crate::form::FormParams;
use crate::message::ConversationEvent;
use crate::signature::SignedForm;
use crate::telemetry::metrics::Endpoint;

/// A verified request, by its kind, with its parameters.
pub(super) enum WebhookEvent {
    /// A probe, which is neither stored nor handled, and needs no permit.
    Probe,
    /// An event of Twilio Conversations.
    Conversation(FormParams),
    /// A status callback.
    Status(FormParams),
    /// An inbound message.
    Message(FormParams),
}

impl Webhooks {
    /// Reads the kind of a request to `endpoint`.
    ///
    /// # Errors
    /// [`ErrorResponse::NotAForm`].
    pub(super) fn read_event(
        &self,
        endpoint: Endpoint,
        form: SignedForm,
    ) -> Result<WebhookEvent, ErrorResponse> {
        // Before anything is parsed: a probe has no `MessageSid` and would be rejected as a malformed message.
        if probe::is_probe(form.params()) {
            return Ok(WebhookEvent::Probe);
        }
        let params = self.params(form)?;
        let is_primary = endpoint == Endpoint::Primary;
        // Before messages: an event of Twilio Conversations can have a `MessageSid` and a `Body` too.
        let event = if is_primary && ConversationEvent::is_one(&params) {
            WebhookEvent::Conversation
        // At `/webhook`: a status callback whose URL is configured wrong. The bot must not reply to it.
        } else if endpoint == Endpoint::Status || is_primary && has_status(&params) {
            WebhookEvent::Status
        } else {
            // Twilio calls the fallback URL for messages only.
            WebhookEvent::Message
        };
        Ok(event(params))
    }
}

fn has_status(params: &FormParams) -> bool {
    params
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
}
