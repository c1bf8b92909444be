//! Kinds of requests that arrive at a webhook.

use super::probe;
use super::response::ErrorResponse;
use super::webhooks::Webhooks;
use crate::form::FormParams;
use crate::message::ConversationEvent;
use crate::signature::SignedForm;
use crate::telemetry::metrics::Endpoint;

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

/// A webhook of another product, whose URL at Twilio is one of the messaging webhooks by mistake.
enum OtherWebhook {
    /// A voice call, or the status of one.
    Call,
    /// An event of Twilio's debugger.
    DebuggerEvent,
}

impl OtherWebhook {
    /// Reads the kind from the parameters; `None` for a message, a status callback or a Conversations event.
    fn classify(params: &FormParams) -> Option<Self> {
        let has = |name| params.get(name).is_some();
        // With one of these it is a message, and no additional parameter may keep it from being accepted.
        if ["MessageSid", "SmsSid", "EventType"].into_iter().any(has) {
            return None;
        }
        if has("CallSid") {
            return Some(Self::Call);
        }
        // Source: Twilio's "Debugging events webhook" page.
        let is_event = ["Level", "PayloadType", "Payload"].into_iter().all(has);
        is_event.then_some(Self::DebuggerEvent)
    }

    /// Returns the text of the log line, with the place of the URL.
    fn problem(&self) -> &'static str {
        match self {
            Self::Call => {
                "rejected a voice call (CallSid), which is not a message: in Twilio's console, enter the URL of a voice \
                 application in the Voice section of the number, and this one in its Messaging section only"
            }
            Self::DebuggerEvent => {
                "rejected an event of Twilio's debugger, which is not a message: in Twilio's console, remove this URL from \
                 the webhook of the debugger (Monitor, Errors), or enter the URL of a program that reads its events"
            }
        }
    }
}

impl Webhooks {
    /// Returns the parameters of a verified request; `None` for a probe, which is neither stored nor handled.
    ///
    /// # Errors
    /// [`ErrorResponse::NotAForm`], or [`ErrorResponse::BadForm`] for a webhook of another product.
    pub(super) fn read_params(
        &self,
        endpoint: Endpoint,
        form: SignedForm,
    ) -> Result<Option<FormParams>, ErrorResponse> {
        // Before anything is parsed: a probe has no `MessageSid` and would be rejected as a malformed message.
        if probe::is_probe(form.params()) {
            return Ok(None);
        }
        let params = self.params(form)?;
        let Some(other) = OtherWebhook::classify(&params) else {
            return Ok(Some(params));
        };
        // A warning and not an error, as for parameters that cannot be read: the request is genuine, and its URL wrong.
        if let Some(suppressed) = self.warnings.other_webhook.try_log() {
            let endpoint = endpoint.as_str();
            tracing::warn!(endpoint, suppressed, "{}", other.problem());
        }
        Err(ErrorResponse::BadForm)
    }
}

fn has_status(params: &FormParams) -> bool {
    params
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
}
