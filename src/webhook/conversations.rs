//! Webhooks of Twilio Conversations, where they are pointed at the message URL: told to a hook, and to no bot.

use std::time::Duration;

use super::Webhooks;
use super::answer::Answer;
use crate::form::Form;
use crate::message::ConversationEvent;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// How long Twilio waits for the hook, which goes on: it gives up after 5 seconds.
///
/// Source: Twilio's "Conversations webhooks" page.
const PATIENCE: Duration = Duration::from_secs(4);

/// Takes one. Nothing of it is kept.
pub(super) async fn tell(webhooks: &Webhooks, params: Form) -> Answer {
    let event = webhooks.sound(Endpoint::Primary, ConversationEvent::parse(params))?;
    if let Some(hook) = webhooks.on_conversation_event.clone() {
        let told = webhooks.tell("conversation_event", async move { hook(event).await });
        // Twilio waits, so that a flood of events finds its limit in the requests that are in flight.
        tokio::select! {
            _ = told => {}
            () = webhooks.clock.sleep(PATIENCE) => {}
        }
    } else if let Some(suppressed) = webhooks.warnings.unheard.pass() {
        tracing::warn!(
            suppressed,
            "Twilio Conversations tells of an event at /webhook, and nothing is done with it: its messages are not the bot's"
        );
    }
    Ok((Document::empty(), Outcome::ConversationEvent))
}
