//! A conversation as a Rust test of the test kit: what the user said, and what the bot said to it.

use std::fmt::Write;

use super::engine::Engine;
use super::record::Record;

impl Engine {
    /// The test, ready to be pasted.
    pub(super) fn write_test(&self, user: &str) -> String {
        let state = self.state();
        let messages: Vec<&Record> = state
            .messages
            .iter()
            .filter(|message| message.user == user)
            .collect();
        let name = messages
            .iter()
            .find_map(|message| message.profile_name.as_deref());
        let mut text = format!(
            "#[tokio::test]\nasync fn the_bot_answers_as_it_did() {{\n    \
             // Put your own handler here.\n    \
             let bot = TestBot::start(|| App::builder()).await;\n    \
             let user = bot.user({user:?}){};\n",
            name.map(|name| format!(".named({name:?})"))
                .unwrap_or_default()
        );
        let mut turns = messages.iter().peekable();
        while let Some(message) = turns.next() {
            if !message.direction.is_in() {
                continue;
            }
            let mut replies = Vec::new();
            while let Some(reply) = turns.next_if(|next| !next.direction.is_in()) {
                if reply.is_on_the_phone() {
                    replies.push(format!("{:?}", reply.body));
                }
            }
            let asserted = match replies.as_slice() {
                [] => "assert_no_reply()".to_owned(),
                [one] => format!("assert_reply({one})"),
                several => format!("assert_replies(&[{}])", several.join(", ")),
            };
            let _ = writeln!(text, "    user.{}.await.{asserted};", said(message));
        }
        text.push_str("}\n");
        let imports = "use replyhook::App;\nuse replyhook::testing::TestBot;\n\n";
        format!("{imports}{text}")
    }
}

fn said(message: &Record) -> String {
    if let Some(button) = &message.button {
        return format!("presses({:?}, {:?})", button.text, button.payload);
    }
    if let Some(place) = &message.location {
        let label = place.label.as_deref().unwrap_or_default();
        return format!(
            "shares({:?}, {:?}, {label:?})",
            place.latitude, place.longitude
        );
    }
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
