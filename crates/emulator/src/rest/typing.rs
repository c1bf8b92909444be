//! Typing indicators: the phone shows them until the next message.

use serde_json::json;

use super::call::ApiCall;
use super::response::{RestResponse, TwilioError, ok};
use crate::engine::Engine;
use crate::state::EmulatorState;

/// Handles a typing indicator, and reports it to the page. Version 2 supports WhatsApp only.
pub(super) fn create(engine: &Engine, call: &ApiCall, version: &str) -> RestResponse {
    let json = call.json.as_ref();
    let field = |name: &str| {
        let text = json.and_then(|json| json[name].as_str());
        text.or_else(|| call.form.get(name)).unwrap_or_default()
    };
    let channel = field("channel").to_ascii_uppercase();
    let state = engine.state();
    let user = match channel.as_str() {
        "WHATSAPP" => user_of_message(&state, field("messageId"))?,
        "RCS" if version == "v3" => {
            if !matches!(field("event"), "" | "START") {
                return Err(TwilioError::bad_request(20001, "event: START"));
            }
            user_of_rcs(&state, field("from"), field("to"))?
        }
        _ if version == "v3" => {
            return Err(TwilioError::bad_request(20001, "channel: WHATSAPP or RCS"));
        }
        _ => return Err(TwilioError::bad_request(20001, "channel: whatsapp")),
    };
    // `emit` serializes JSON; release the lock first.
    drop(state);
    engine.emit("typing", &json!({"user": user}));
    ok(200, &json!({"success": true}))
}

/// Returns the author of an inbound message.
fn user_of_message(state: &EmulatorState, sid: &str) -> Result<String, TwilioError> {
    let found = state.message(sid).filter(|m| m.direction.is_in());
    let unknown = || TwilioError::new(404, 20404, "messageId: unknown inbound message");
    found
        .map(|message| message.user.clone())
        .ok_or_else(unknown)
}

/// Returns a user on RCS who has a conversation with the sender.
fn user_of_rcs(state: &EmulatorState, sender: &str, user: &str) -> Result<String, TwilioError> {
    let is_rcs = |address: &str| address.starts_with("rcs:");
    if !is_rcs(sender) || !is_rcs(user) {
        let message = "from and to: addresses that start with rcs:";
        return Err(TwilioError::bad_request(20001, message));
    }
    let mut messages = state.messages.iter();
    let has_written = messages.any(|message| message.user == user && message.sender == sender);
    let unknown = || TwilioError::bad_request(20001, "to: no conversation with from");
    has_written.then(|| user.to_owned()).ok_or_else(unknown)
}
