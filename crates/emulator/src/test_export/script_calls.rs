//! The calls that a test in Python or JavaScript makes: both templates have functions of the same names.

use serde_json::Value;

use super::literals::{LiteralStyle, json_string};
use crate::scripted_conversation::{ScriptAction, ScriptedConversation};

/// Returns one call for each step of a conversation.
pub(super) fn script_calls(script: &ScriptedConversation, style: &LiteralStyle) -> Vec<String> {
    // A redelivery names its message by the number of the call that sent it.
    let mut sent = Vec::new();
    let mut calls = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        let replies = style.texts(&step.replies);
        calls.push(match &step.action {
            ScriptAction::Send(content) => {
                sent.push(index);
                let content = style.literal(&Value::Object(content.clone()));
                format!("sends({content}, {replies})")
            }
            ScriptAction::Tap(title) => {
                sent.push(index);
                format!("taps({}, {replies})", json_string(title))
            }
            ScriptAction::Redeliver(of) => {
                let of = sent.iter().position(|index| index == of);
                format!("redeliver({}, {replies})", of.unwrap_or_default())
            }
            ScriptAction::Faults(faults) => {
                format!("faults({})", style.literal(&Value::Object(faults.clone())))
            }
            ScriptAction::Advance(seconds) => format!("advance({seconds})"),
        });
    }
    calls
}

/// Returns the source of a test: its template with the user, the command of the bot, the fields of every message and the
/// steps.
pub(super) fn fill_template(
    template: &str,
    script: &ScriptedConversation,
    bot: &str,
    common: &str,
    steps: &str,
) -> String {
    template
        .replace("{{user}}", &json_string(&script.user))
        .replace("{{bot}}", bot)
        .replace("{{common}}", common)
        // Last: a text of the conversation may look like a place of the template.
        .replace("{{steps}}", steps)
}
