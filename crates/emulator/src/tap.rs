//! Taps: the `choice` of `POST /_emulator/messages`, which names an item that the phone shows.

use serde::Deserialize;

use super::content::phone_content::{PhoneContent, PhoneItem, PhoneItemKind, PhoneLayout};
use super::record::{QuickReply, Record, TapOrigin};
use super::state::EmulatorState;
use replyhook_core::address::{Address, Channel};

/// Item that a user taps.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChoice {
    /// ID of the item, or its payload.
    id: String,
    /// Message that shows the item. Default: the last one of the conversation with items.
    #[serde(default)]
    message_sid: Option<String>,
}

/// Tapped item, with the message that shows it.
pub(super) struct TappedItem {
    pub(super) button: QuickReply,
    /// Sender of the message, which the tap is sent to.
    pub(super) sender: String,
    pub(super) origin: TapOrigin,
}

/// Finds the item of a choice.
///
/// # Errors
/// An explanation if the message has no item with this ID, or a tap on it sends nothing.
pub(super) fn find_tapped_item(
    state: &EmulatorState,
    user: &Address,
    sender: Option<&str>,
    choice: &UserChoice,
) -> Result<TappedItem, String> {
    let is_shown = |message: &&Record| {
        message.user == user.as_str()
            && !message.direction.is_in()
            && message.is_shown_on_phone()
            && sender.is_none_or(|sender| message.sender == sender)
    };
    let shown = state.messages.iter().rev().filter(is_shown);
    let mut with_items = shown.filter_map(|message| {
        let content = message.content.as_ref()?;
        (!content.items.is_empty()).then_some((message, content))
    });
    let found = match &choice.message_sid {
        Some(sid) => with_items.find(|(message, _)| message.sid == *sid),
        None => with_items.next(),
    };
    let Some((message, content)) = found else {
        return Err(match &choice.message_sid {
            Some(_) => "choice.message_sid: no message on this phone with items",
            None => "choice: no message of this conversation has an item to tap",
        }
        .to_owned());
    };
    let items = &content.items;
    let by_id = items.iter().find(|item| item.id == choice.id);
    let item = by_id.or_else(|| items.iter().find(|item| item.payload() == choice.id));
    let item = item.ok_or_else(|| {
        let ids: Vec<_> = content.items.iter().map(|item| item.id.as_str()).collect();
        format!(
            "choice.id: {:?} is not an item of that message; its items are {}",
            choice.id,
            ids.join(", ")
        )
    })?;
    let button = tap_result(item, user.channel())?;
    Ok(TappedItem {
        button,
        sender: message.sender.clone(),
        origin: TapOrigin {
            message_sid: message.sid.clone(),
            sender: message.sender.clone(),
            message_type: message_type(item, content),
            button_type: if item.kind == PhoneItemKind::Reply {
                "REPLY"
            } else {
                "ACTION"
            },
        },
    })
}

/// Returns text and payload that a tap sends.
fn tap_result(item: &PhoneItem, channel: &Channel) -> Result<QuickReply, String> {
    let reply = |text: &str, payload: &str| {
        Ok(QuickReply {
            text: text.to_owned(),
            payload: payload.to_owned(),
        })
    };
    match item.kind {
        PhoneItemKind::Reply => reply(&item.title, item.payload()),
        // A request for a permission; the emulated user permits it.
        PhoneItemKind::Call if *channel == Channel::WhatsApp => {
            reply("VOICE_CALL_REQUEST", "ACCEPTED")
        }
        // RCS reports an opened link, if it has an ID.
        PhoneItemKind::Link | PhoneItemKind::Phone if item.is_reported => {
            reply(&item.title, item.payload())
        }
        PhoneItemKind::Flow => {
            Err("choice: this button opens a form; send its fields as `flow`".to_owned())
        }
        kind => {
            let effect = match kind {
                PhoneItemKind::Link => "opens a link",
                PhoneItemKind::Phone => "calls a number",
                PhoneItemKind::Copy => "copies a code",
                _ => "has its effect on the phone only",
            };
            Err(format!(
                "choice: this button {effect}, and sends no message"
            ))
        }
    }
}

/// Returns the `MessageType` of a tap on WhatsApp: quick replies of approved templates are `button`.
fn message_type(item: &PhoneItem, content: &PhoneContent) -> &'static str {
    let is_template_button = content.is_approved
        && item.kind == PhoneItemKind::Reply
        && content.layout != PhoneLayout::List;
    if is_template_button {
        "button"
    } else {
        "interactive"
    }
}

/// Returns the last message of the conversation that offers a Flow.
pub(super) fn find_flow_origin(
    state: &EmulatorState,
    user: &str,
    sender: &str,
) -> Option<TapOrigin> {
    let message = state.messages.iter().rev().find(|message| {
        let content = message.content.as_ref();
        message.user == user
            && message.sender == sender
            && message.is_shown_on_phone()
            && content.is_some_and(|content| content.flow.is_some())
    })?;
    Some(TapOrigin {
        message_sid: message.sid.clone(),
        sender: message.sender.clone(),
        message_type: "interactive",
        button_type: "REPLY",
    })
}
