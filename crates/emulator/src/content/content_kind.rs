//! [`ContentKind`]: the name of a content type, and the type that each channel gets.

use std::fmt;

use serde_json::{Map, Value};

use replyhook_core::address::Channel;
use replyhook_core::template::is_shown_on;

/// Name of a content type, in rising order of complexity: a recipient gets the last one that its channel supports.
///
/// Source: twilio.com/docs/content/content-types-overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ContentKind {
    Text,
    Media,
    Location,
    QuickReply,
    CallToAction,
    ListPicker,
    Card,
    Carousel,
    Catalog,
    Pay,
    Flows,
    WhatsAppFlows,
    WhatsAppCard,
    Authentication,
    /// `twilio/schedule`, which is for Apple's channel. No channel of the emulator supports it.
    Schedule,
}

const KINDS: [(&str, ContentKind); 15] = [
    ("twilio/text", ContentKind::Text),
    ("twilio/media", ContentKind::Media),
    ("twilio/location", ContentKind::Location),
    ("twilio/quick-reply", ContentKind::QuickReply),
    ("twilio/call-to-action", ContentKind::CallToAction),
    ("twilio/list-picker", ContentKind::ListPicker),
    ("twilio/card", ContentKind::Card),
    ("twilio/carousel", ContentKind::Carousel),
    ("twilio/catalog", ContentKind::Catalog),
    ("twilio/pay", ContentKind::Pay),
    ("twilio/flows", ContentKind::Flows),
    ("whatsapp/flows", ContentKind::WhatsAppFlows),
    ("whatsapp/card", ContentKind::WhatsAppCard),
    ("whatsapp/authentication", ContentKind::Authentication),
    ("twilio/schedule", ContentKind::Schedule),
];

impl ContentKind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut kinds = KINDS.iter();
        kinds
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    pub(crate) fn names() -> [&'static str; KINDS.len()] {
        KINDS.map(|(name, _)| name)
    }

    /// Returns whether the type may open a WhatsApp conversation once it is approved.
    pub(crate) fn opens_conversation(self) -> bool {
        !matches!(self, Self::Location | Self::ListPicker | Self::Pay)
    }
}

impl fmt::Display for ContentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = KINDS.iter();
        let name = kinds.find(|(_, kind)| kind == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

/// Returns the most complex type that the channel supports, with its fields.
pub(crate) fn type_for<'a>(
    types: &'a Map<String, Value>,
    channel: &Channel,
) -> Option<(ContentKind, &'a Value)> {
    let shown = types.iter().filter(|(name, _)| is_shown_on(name, channel));
    let known = shown.filter_map(|(name, fields)| Some((ContentKind::parse(name)?, fields)));
    known.max_by_key(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name_for(types: &Value, channel: &Channel) -> String {
        let found = type_for(types.as_object().unwrap(), channel);
        found.map_or_else(String::new, |(kind, _)| kind.to_string())
    }

    #[test]
    fn channel_gets_most_complex_type_it_supports() {
        let types = json!({"twilio/list-picker": {}, "twilio/text": {}, "twilio/card": {}, "twilio/quick-reply": {}});
        for (channel, expected) in [
            (Channel::WhatsApp, "twilio/card"),
            (Channel::Rcs, "twilio/card"),
            (Channel::Messenger, "twilio/card"),
            (Channel::Sms, "twilio/text"),
        ] {
            assert_eq!(name_for(&types, &channel), expected);
        }
        let list = json!({"twilio/text": {}, "twilio/quick-reply": {}, "twilio/list-picker": {}});
        assert_eq!(name_for(&list, &Channel::WhatsApp), "twilio/list-picker");
        assert_eq!(name_for(&list, &Channel::Messenger), "twilio/quick-reply");
        assert_eq!(name_for(&list, &Channel::Rcs), "twilio/text");
        let media = json!({"twilio/text": {}, "twilio/media": {}});
        assert_eq!(name_for(&media, &Channel::Sms), "twilio/media");
        let other = Channel::Other("viber".to_owned());
        assert_eq!(name_for(&media, &other), "twilio/text");
        assert_eq!(
            name_for(&json!({"twilio/list-picker": {}}), &Channel::Sms),
            ""
        );
    }
}
