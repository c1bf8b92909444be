//! Export of a conversation as a Rust test that uses `TestBot`.

use std::fmt::Write;

use super::engine::Engine;
use super::record::Record;

/// Returns the source of a test that repeats a user's messages and expects the same replies.
pub(super) fn export_test(engine: &Engine, user: &str) -> String {
    let state = engine.state();
    let messages: Vec<&Record> = state
        .messages
        .iter()
        .filter(|message| message.user == user)
        .collect();
    let name = messages
        .iter()
        .find_map(|message| message.profile_name.as_deref());
    let mut text = format!(
        "#[tokio::test]\nasync fn bot_replies_as_recorded() {{\n    \
         // Put your own handler here.\n    \
         let bot = TestBot::start(|| App::builder()).await;\n    \
         let user = bot.user({user:?}){};\n",
        name.map(|name| format!(".named({name:?})"))
            .unwrap_or_default()
    );
    let mut turns = messages.iter().peekable();
    while let Some(message) = turns.next() {
        // Outbound messages before the first inbound one: the test has no user action to expect them after.
        if !message.direction.is_in() {
            continue;
        }
        // Everything until the next inbound message counts as the reply.
        let mut replies = Vec::new();
        while let Some(reply) = turns.next_if(|next| !next.direction.is_in()) {
            if reply.is_shown_on_phone() {
                replies.push(format!("{:?}", reply.body));
            }
        }
        let assertion = match replies.as_slice() {
            [] => "assert_no_reply()".to_owned(),
            [reply] => format!("assert_reply({reply})"),
            replies => format!("assert_replies(&[{}])", replies.join(", ")),
        };
        let _ = writeln!(text, "    user.{}.await.{assertion};", user_action(message));
    }
    text.push_str("}\n");
    let imports = "use replyhook::App;\nuse replyhook::testing::TestBot;\n\n";
    format!("{imports}{text}")
}

/// Returns the call of the test kit that sends this message.
fn user_action(message: &Record) -> String {
    // By title: a choice has another payload in every conversation.
    if let (Some(button), Some(_)) = (&message.button, &message.tap) {
        return format!("taps({:?})", button.text);
    }
    if let Some(button) = &message.button {
        return format!("presses({:?}, {:?})", button.text, button.payload);
    }
    if let Some(fields) = &message.flow {
        let fields = serde_json::Value::Object(fields.clone());
        return format!("sends(serde_json::json!({{\"flow\": {fields}}}))");
    }
    if let Some(location) = &message.location {
        let label = location.label.as_deref().unwrap_or_default();
        return format!(
            "shares({:?}, {:?}, {label:?})",
            location.latitude, location.longitude
        );
    }
    // Only the first file: `sends_file` takes one. Its content is not exported, so the test includes a file by name.
    if let Some(media) = message.media.first() {
        return format!(
            "sends_file({:?}, include_bytes!({:?}), {:?})",
            media.content_type,
            media.filename.as_deref().unwrap_or("the-file"),
            message.body
        );
    }
    format!("says({:?})", message.body)
}
