//! A conversation as steps that a test can repeat: the user's messages, redeliveries, faults and the clock, each with
//! the replies that it caused.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::account::sender_for;
use super::control_action::ControlAction;
use super::engine::Engine;
use super::record::{Direction, Record};
use super::state::EmulatorState;
use replyhook_core::address::Address;

/// A user's conversation.
pub(super) struct ScriptedConversation {
    pub(super) user: String,
    /// Sender that the user wrote to first.
    pub(super) sender: String,
    pub(super) profile_name: Option<String>,
    pub(super) steps: Vec<ScriptStep>,
}

pub(super) struct ScriptStep {
    pub(super) action: ScriptAction,
    /// Texts of all messages of the bot and of Twilio that this step caused.
    pub(super) replies: Vec<String>,
    /// Position in the order of arrival.
    position: u64,
    /// SID of the inbound message.
    sid: Option<String>,
}

pub(super) enum ScriptAction {
    /// A message: the body of `POST messages`, without what all of them have in common.
    Send(Map<String, Value>),
    /// A tap on the item with this title, of the last message with items.
    Tap(String),
    /// A redelivery of the message of the step with this index.
    Redeliver(usize),
    Faults(Map<String, Value>),
    Advance(i64),
}

impl ScriptStep {
    fn new(action: ScriptAction, position: u64, sid: Option<&str>) -> Self {
        Self {
            action,
            replies: Vec::new(),
            position,
            sid: sid.map(str::to_owned),
        }
    }

    pub(super) fn is_delivery(&self) -> bool {
        self.sid.is_some()
    }
}

/// Returns a user's conversation since the start or the last reset.
pub(super) async fn scripted_conversation(engine: &Engine, user: &str) -> ScriptedConversation {
    let answered = answered_messages(engine, user).await;
    let state = engine.state();
    let messages: Vec<&Record> = state
        .messages
        .iter()
        .filter(|message| message.user == user)
        .collect();
    let first = messages
        .iter()
        .find(|message| message.direction.is_in())
        .copied();
    let default_sender = sender_for(&Address::parse(user)).unwrap_or_default();
    let mut script = ScriptedConversation {
        user: user.to_owned(),
        sender: first
            .map_or(default_sender, |first| &first.sender)
            .to_owned(),
        profile_name: first.and_then(|first| first.profile_name.clone()),
        steps: Vec::new(),
    };
    let inbound = messages
        .iter()
        .filter(|message| message.direction.is_in())
        .map(|message| {
            let action = user_action(&state, &script, &messages, message);
            ScriptStep::new(action, message.position, Some(&message.sid))
        });
    let mut steps: Vec<ScriptStep> = inbound.collect();
    for (position, action) in &state.actions {
        let (action, sid) = match action {
            ControlAction::Faults(faults) => (ScriptAction::Faults(faults.clone()), None),
            ControlAction::Clock(seconds) => (ScriptAction::Advance(*seconds), None),
            // The index is known when all steps are.
            ControlAction::Redelivery(sid) => (ScriptAction::Redeliver(0), Some(sid.as_str())),
        };
        let is_own = sid.is_none_or(|sid| messages.iter().any(|message| message.sid == sid));
        if is_own {
            steps.push(ScriptStep::new(action, *position, sid));
        }
    }
    // Stable: an action has the position of the message before it, and comes after it.
    steps.sort_by_key(|step| step.position);
    for index in 0..steps.len() {
        let of = steps[..index]
            .iter()
            .position(|step| step.sid == steps[index].sid);
        if let (ScriptAction::Redeliver(target), Some(of)) = (&mut steps[index].action, of) {
            *target = of;
        }
    }
    for reply in messages.iter().filter(|message| !message.direction.is_in()) {
        let sid = reply
            .in_reply_to
            .as_ref()
            .or_else(|| answered.get(&reply.sid));
        if let Some(index) = step_of(&steps, reply, sid) {
            steps[index].replies.push(reply.body.clone());
        }
    }
    script.steps = steps;
    script
}

/// Returns the inbound message that each late reply answers, if the app says it.
async fn answered_messages(engine: &Engine, user: &str) -> HashMap<String, String> {
    let senders: Vec<String> = {
        let state = engine.state();
        let messages = state.messages.iter();
        let mut senders: Vec<String> = messages
            .filter(|message| message.user == user)
            .map(|message| message.sender.clone())
            .collect();
        senders.sort();
        senders.dedup();
        senders
    };
    let mut answered = HashMap::new();
    let Some(app) = engine.app() else {
        return answered;
    };
    for sender in senders {
        let state = app.state(user.to_owned(), sender).await;
        let answers = state["answers"].as_object().into_iter().flatten();
        answered
            .extend(answers.filter_map(|(sid, of)| Some((sid.clone(), of.as_str()?.to_owned()))));
    }
    answered
}

/// Returns the step that caused a reply to the message `sid`, or to an unknown message.
fn step_of(steps: &[ScriptStep], reply: &Record, sid: Option<&String>) -> Option<usize> {
    let mut earlier = steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.is_delivery() && step.position < reply.position);
    let found = match sid {
        None => earlier.next_back(),
        // The first delivery causes a late reply. TwiML comes in the response to the last one.
        Some(sid) if reply.direction == Direction::Api => {
            earlier.find(|(_, step)| step.sid.as_ref() == Some(sid))
        }
        Some(sid) => earlier.rfind(|(_, step)| step.sid.as_ref() == Some(sid)),
    };
    found.map(|(index, _)| index)
}

/// Returns the action that sends this message again.
fn user_action(
    state: &EmulatorState,
    script: &ScriptedConversation,
    messages: &[&Record],
    message: &Record,
) -> ScriptAction {
    let mut content = Map::new();
    let mut add = |name: &str, value: Value| content.insert(name.to_owned(), value);
    if message.sender != script.sender {
        add("to", json!(message.sender));
    }
    if message.profile_name != script.profile_name && message.profile_name.is_some() {
        add("profile_name", json!(message.profile_name));
    }
    if !message.typed_params.is_empty() {
        add("params", json!(message.typed_params));
    }
    if let (Some(button), Some(tap)) = (&message.button, &message.tap)
        && content.is_empty()
        && is_last_offer(messages, message, &tap.message_sid, &button.text)
    {
        // By title: a choice has another payload in every conversation.
        return ScriptAction::Tap(button.text.clone());
    }
    let mut add = |name: &str, value: Value| content.insert(name.to_owned(), value);
    if let Some(button) = &message.button {
        add("button", json!(button));
    }
    // Without a body, a tap sends the text of its button.
    let is_button_text = message
        .button
        .as_ref()
        .is_some_and(|button| button.text == message.body);
    if !message.body.is_empty() && !is_button_text {
        add("body", json!(message.body));
    }
    if let Some(location) = &message.location {
        let mut location = json!(location);
        if let Some(fields) = location.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        add("location", location);
    }
    if let Some(flow) = &message.flow {
        add("flow", json!(flow));
    }
    let files = message.media.iter().map(|media| {
        let stored = state.media(&media.sid);
        let mut file = json!({"content_type": media.content_type});
        match stored {
            Some(stored) => file["data"] = STANDARD.encode(&stored.bytes).into(),
            // Dropped to free space, or never fetched. The address may work in the test.
            None => file["url"] = media.url.as_str().into(),
        }
        if let Some(name) = &media.filename {
            file["filename"] = name.as_str().into();
        }
        file
    });
    let files: Vec<Value> = files.collect();
    if !files.is_empty() {
        add("media", files.into());
    }
    if content.is_empty() {
        content.insert("body".to_owned(), "".into());
    }
    ScriptAction::Send(content)
}

/// Returns whether the tapped message is the last one with items at the time of the tap, so that a title finds it.
fn is_last_offer(messages: &[&Record], tap: &Record, tapped_sid: &str, title: &str) -> bool {
    let has_items = |message: &Record| {
        let content = message.content.as_ref();
        content.is_some_and(|content| !content.items.is_empty())
    };
    let has_numbers = |message: &Record| message.body.lines().any(|line| line.starts_with("1. "));
    let last = messages.iter().rev().find(|message| {
        message.position < tap.position
            && !message.direction.is_in()
            && message.is_shown_on_phone()
            && (has_items(message) || has_numbers(message))
    });
    last.is_some_and(|last| {
        let content = last.content.as_ref();
        let mut items = content.into_iter().flat_map(|content| &content.items);
        last.sid == tapped_sid && items.any(|item| item.title == title)
    })
}
