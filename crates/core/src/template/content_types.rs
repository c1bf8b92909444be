//! Names of the content types.

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

/// Returns all known types.
pub(super) fn known_types() -> impl Iterator<Item = &'static str> {
    WHATSAPP_TYPES.into_iter().chain(OTHER_TYPES)
}

/// Returns the type among these that Twilio sends on WhatsApp.
pub(super) fn whatsapp_type<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let names: Vec<_> = names.collect();
    let mut types = WHATSAPP_TYPES.into_iter().rev();
    types.find(|known| names.contains(known))
}

/// Returns whether an approved template of this type may open a conversation.
pub(super) fn opens_conversation(name: &str) -> bool {
    !SESSION_TYPES.contains(&name)
}
