//! Tests in Rust, with the test kit.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::literals::LiteralStyle;
use crate::account::sender_for;
use crate::scripted_conversation::{ScriptAction, ScriptStep, ScriptedConversation};
use replyhook_core::address::Address;

const STYLE: LiteralStyle = LiteralStyle {
    words: ["null", "true", "false"],
    quote: |text| format!("{text:?}"),
};

pub(super) fn export(script: &ScriptedConversation) -> String {
    let mut body = String::new();
    let mut faults = Map::new();
    let mut last_delivery = None;
    for (index, step) in script.steps.iter().enumerate() {
        let line = match &step.action {
            ScriptAction::Send(_) | ScriptAction::Tap(_) => {
                last_delivery = Some(index);
                format!(
                    "user.{}.await.{};",
                    user_call(script, &step.action),
                    assertion(step)
                )
            }
            // `redeliver` takes the last message. An older one is delivered again rarely.
            ScriptAction::Redeliver(of) if Some(*of) == last_delivery => {
                format!(
                    "bot.redeliver().await.assert_replies(&{});",
                    STYLE.texts(&step.replies)
                )
            }
            ScriptAction::Redeliver(_) => {
                "// Here an older message was delivered again, which the test kit cannot do."
                    .to_owned()
            }
            ScriptAction::Advance(seconds) => {
                let (unit, count) = match *seconds {
                    seconds if seconds % 3600 == 0 => ("hours", seconds / 3600),
                    seconds if seconds % 60 == 0 => ("mins", seconds / 60),
                    seconds => ("secs", seconds),
                };
                format!("bot.advance(Duration::from_{unit}({count})).await;")
            }
            ScriptAction::Faults(active) => {
                let lines = fault_lines(&faults, active);
                faults.clone_from(active);
                lines.join("\n    ")
            }
        };
        if !line.is_empty() {
            let _ = writeln!(body, "    {line}");
        }
    }
    let duration = if body.contains("Duration::") {
        "use std::time::Duration;\n\n"
    } else {
        ""
    };
    let json = match (body.contains("Value::Null"), body.contains("json!(")) {
        (true, true) => "use serde_json::{Value, json};\n",
        (true, false) => "use serde_json::Value;\n",
        (false, true) => "use serde_json::json;\n",
        (false, false) => "",
    };
    let name = script.profile_name.as_ref();
    let named = name.map(|name| format!(".named({name:?})"));
    format!(
        "{duration}use replyhook::App;\nuse replyhook::testing::TestBot;\n{json}\n\
         #[tokio::test]\nasync fn bot_replies_as_recorded() {{\n    \
         // Put your own handler here.\n    \
         let bot = TestBot::start(|| App::builder()).await;\n    \
         let user = bot.user({:?}){};\n{body}    \
         bot.stop().await;\n}}\n",
        script.user,
        named.unwrap_or_default()
    )
}

fn assertion(step: &ScriptStep) -> String {
    match step.replies.as_slice() {
        [reply] => format!("assert_reply({reply:?})"),
        // Not `assert_no_reply`, which also expects that the bot did not fail.
        replies => format!("assert_replies(&{})", STYLE.texts(replies)),
    }
}

/// Returns the call of the test kit that sends a message.
fn user_call(script: &ScriptedConversation, action: &ScriptAction) -> String {
    let content = match action {
        ScriptAction::Tap(title) => return format!("taps({title:?})"),
        ScriptAction::Send(content) => content,
        _ => return String::new(),
    };
    let default_sender = sender_for(&Address::parse(script.user.as_str()));
    let mut content = content.clone();
    if default_sender != Some(&script.sender) {
        let sender = content.entry("to");
        sender.or_insert_with(|| script.sender.as_str().into());
    }
    let fields: Vec<(&str, &Value)> = content
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    match fields.as_slice() {
        [("body", Value::String(body))] => format!("says({body:?})"),
        [("button", button)] => {
            let text = |name: &str| button[name].as_str().unwrap_or_default().to_owned();
            format!("presses({:?}, {:?})", text("text"), text("payload"))
        }
        _ => format!("sends(json!({}))", STYLE.literal(&Value::Object(content))),
    }
}

/// Returns the calls that change the faults from `before` to `after`.
fn fault_lines(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let removed = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| (name, &Value::Null));
    let changed = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value));
    let lines = removed
        .chain(changed)
        .map(|(name, value)| match name.as_str() {
            "handler_ms" => {
                let ms = value.as_u64().unwrap_or_default();
                format!("bot.set_handler_latency(Duration::from_millis({ms})).await;")
            }
            "handler_fails" => format!("bot.set_handler_failing({}).await;", !value.is_null()),
            "drop_connection" => format!("bot.set_primary_down({}).await;", !value.is_null()),
            name if value.is_null() => format!("bot.set_fault({name:?}, Value::Null).await;"),
            name => format!(
                "bot.set_fault({name:?}, json!({})).await;",
                STYLE.literal(value)
            ),
        });
    lines.collect()
}
