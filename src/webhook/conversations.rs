//! Webhooks of Twilio Conversations that arrive at `/webhook`: they reach a hook, and never the bot.

use std::time::Duration;

use super::response::WebhookResult;
use super::webhooks::Webhooks;
use crate::form::FormParams;
use crate::message::ConversationEvent;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// Time after which Twilio gets a response, even if the hook is still running.
///
/// Twilio gives up after 5 seconds. Source: Twilio's "Conversations webhooks" page.
const HOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// Handles one event. Nothing of it is stored.
pub(super) async fn handle(webhooks: &Webhooks, params: FormParams) -> WebhookResult {
    let event = webhooks.require_parsed(Endpoint::Primary, ConversationEvent::parse(params))?;
    if let Some(hook) = webhooks.on_conversation_event.clone() {
        let running = webhooks.spawn_hook("conversation_event", async move { hook(event).await });
        // Respond only after the hook: until then this request holds its `InFlightPermit`, which bounds the number of
        // running hooks. At the timeout the hook continues as a task of its own.
        tokio::select! {
            _ = running => {}
            () = webhooks.clock.sleep(HOOK_TIMEOUT) => {}
        }
    } else if let Some(suppressed) = webhooks.warnings.unhandled.try_log() {
        tracing::warn!(
            suppressed,
            "ignored a Twilio Conversations event at the primary webhook: no on_conversation_event hook is set, and the bot does not get such messages"
        );
    }
    Ok((Document::empty(), Outcome::ConversationEvent))
}
