//! Names of the content types, and the channels that can show them.

use crate::address::Channel;

/// Content types of WhatsApp from the simplest to the most complex. Twilio sends the most complex one of a template.
///
/// Source: twilio.com/docs/content/content-types-overview.
pub const WHATSAPP_TYPES: [&str; 14] = [
    "twilio/text",
    "twilio/media",
    "twilio/location",
    "twilio/quick-reply",
    "twilio/call-to-action",
    "twilio/list-picker",
    "twilio/card",
    "twilio/carousel",
    "twilio/catalog",
    "twilio/pay",
    "twilio/flows",
    "whatsapp/card",
    "whatsapp/flows",
    "whatsapp/authentication",
];
/// Types for other channels only.
const OTHER_TYPES: [&str; 1] = ["twilio/schedule"];
/// Types that WhatsApp takes within the customer service window only. An approval is of no use to them.
const SESSION_TYPES: [&str; 3] = ["twilio/location", "twilio/list-picker", "twilio/pay"];

/// Returns whether a channel can show a content type. On SMS, `twilio/media` makes an MMS.
///
/// Source: twilio.com/docs/content/content-types-overview.
pub fn is_shown_on(content_type: &str, channel: &Channel) -> bool {
    let allowed: &[&str] = match channel {
        Channel::WhatsApp => &WHATSAPP_TYPES,
        Channel::Sms => &["twilio/text", "twilio/media"],
        Channel::Rcs => &[
            "twilio/text",
            "twilio/media",
            "twilio/card",
            "twilio/carousel",
        ],
        Channel::Messenger => &[
            "twilio/text",
            "twilio/media",
            "twilio/quick-reply",
            "twilio/call-to-action",
            "twilio/card",
        ],
        _ => &["twilio/text"],
    };
    allowed.contains(&content_type)
}

/// Returns all known types.
pub(super) fn known_types() -> impl Iterator<Item = &'static str> {
    WHATSAPP_TYPES.into_iter().chain(OTHER_TYPES)
}

/// Returns the type among these that Twilio sends on WhatsApp.
pub(super) fn whatsapp_type<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    type_on(&Channel::WhatsApp, names)
}

/// Returns the type among these that Twilio sends on a channel: the most complex one that it can show.
pub fn type_on<'a>(
    channel: &Channel,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'static str> {
    let names: Vec<_> = names.collect();
    let mut types = WHATSAPP_TYPES.into_iter().rev();
    types.find(|known| names.contains(known) && is_shown_on(known, channel))
}

/// Returns whether an approved template of this type may open a conversation.
pub(super) fn opens_conversation(name: &str) -> bool {
    !SESSION_TYPES.contains(&name)
}
