//! Content that WhatsApp takes only after approval, even within the customer service window.
//!
//! Source: Twilio's pages of the content types, "Using Content in session". Where they contradict each other, the stricter
//! rule.

use std::collections::BTreeMap;

use replyhook_core::template::WHATSAPP_TYPES;
use replyhook_core::template::limits::MAX_SESSION_BUTTONS;
use serde_json::Value;

/// Returns the reason why WhatsApp takes a content with these types only after approval; `None` if it takes it within the
/// window.
pub(super) fn approval_reason(types: &BTreeMap<String, Value>) -> Option<&'static str> {
    let sent = WHATSAPP_TYPES
        .iter()
        .rev()
        .find(|name| types.contains_key(**name))?;
    let actions = types.get(*sent)?.get("actions").and_then(Value::as_array);
    let kinds: Vec<&str> = actions
        .into_iter()
        .flatten()
        .map(|action| {
            action
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("QUICK_REPLY")
        })
        .collect();
    match *sent {
        "twilio/carousel" => Some("a carousel needs WhatsApp's approval"),
        "twilio/flows" | "whatsapp/flows" => Some("a Flow needs WhatsApp's approval"),
        "whatsapp/authentication" => Some("an authentication template needs WhatsApp's approval"),
        "twilio/quick-reply" if kinds.len() > MAX_SESSION_BUTTONS => {
            Some("more than 3 quick replies need WhatsApp's approval")
        }
        "twilio/call-to-action" => actions_reason(&kinds, false),
        "twilio/card" | "whatsapp/card" => actions_reason(&kinds, true),
        _ => None,
    }
}

fn actions_reason(kinds: &[&str], has_quick_replies: bool) -> Option<&'static str> {
    let is_free = |kind: &&str| match *kind {
        "URL" | "VOICE_CALL" | "VOICE_CALL_REQUEST" => true,
        kind => has_quick_replies && kind == "QUICK_REPLY",
    };
    if !kinds.iter().all(is_free) {
        return Some("a button that calls a number or copies a code needs WhatsApp's approval");
    }
    if kinds.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some("buttons of several types need WhatsApp's approval");
    }
    match (kinds.first(), kinds.len()) {
        (Some(&"URL"), 2..) => Some("more than one button with a URL needs WhatsApp's approval"),
        (_, 4..) => Some("more than 3 buttons need WhatsApp's approval"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn approval_is_needed_for_types_and_buttons() {
        let buttons = |kinds: &[&str]| {
            let actions: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            json!({"body": "x", "actions": actions})
        };
        let quick = |number| buttons(&vec!["QUICK_REPLY"; number]);
        for (name, fields, reason) in [
            ("twilio/text", json!({}), None),
            ("twilio/list-picker", json!({"items": []}), None),
            ("twilio/quick-reply", quick(3), None),
            ("twilio/quick-reply", quick(4), Some("quick replies")),
            ("twilio/call-to-action", buttons(&["URL"]), None),
            (
                "twilio/call-to-action",
                buttons(&["URL", "URL"]),
                Some("one button"),
            ),
            (
                "twilio/call-to-action",
                buttons(&["PHONE_NUMBER"]),
                Some("calls a number"),
            ),
            (
                "twilio/call-to-action",
                buttons(&["QUICK_REPLY"]),
                Some("calls a number"),
            ),
            ("twilio/card", quick(3), None),
            (
                "whatsapp/card",
                buttons(&["QUICK_REPLY", "URL"]),
                Some("several types"),
            ),
            ("twilio/carousel", json!({}), Some("carousel")),
            ("twilio/flows", json!({}), Some("Flow")),
            ("whatsapp/authentication", json!({}), Some("authentication")),
        ] {
            let types = BTreeMap::from([
                ("twilio/text".to_owned(), json!({})),
                (name.to_owned(), fields),
            ]);
            let found = approval_reason(&types);
            let is_expected = match reason {
                None => found.is_none(),
                Some(part) => found.is_some_and(|text| text.contains(part)),
            };
            assert!(is_expected, "{name}: {found:?}");
        }
    }
}
