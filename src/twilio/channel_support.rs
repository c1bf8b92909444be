//! Channels that can show a template.

use std::collections::BTreeMap;

use replyhook_core::template::{WHATSAPP_TYPES, type_on};
use serde_json::Value;

use crate::address::Channel;
use crate::reply::kinds::accepts_type;
use crate::reply::names::media_type_by_extension;

/// Reasons why channels cannot show a template, by channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChannelSupport {
    sms: Option<&'static str>,
    whatsapp: Option<&'static str>,
    rcs: Option<&'static str>,
    messenger: Option<&'static str>,
}

impl ChannelSupport {
    /// No reason on any channel.
    pub(crate) const ALL: Self = Self {
        sms: None,
        whatsapp: None,
        rcs: None,
        messenger: None,
    };

    /// Returns the reasons for a template with these content types.
    pub(super) fn of(types: &BTreeMap<String, Value>) -> Self {
        let is_known = |name: &String| WHATSAPP_TYPES.contains(&name.as_str());
        // Twilio decides about a type that is not known here.
        if types.is_empty() || !types.keys().all(is_known) {
            return Self::ALL;
        }
        let refusal = |channel, reason| match type_on(&channel, types.keys().map(String::as_str)) {
            None => Some(reason),
            Some(name) => media_refusal(&channel, &types[name]),
        };
        Self {
            sms: refusal(
                Channel::Sms,
                "SMS shows only twilio/text and twilio/media, and the template has neither; add twilio/text to it",
            ),
            whatsapp: refusal(
                Channel::WhatsApp,
                "WhatsApp shows no content type of the template; add twilio/text to it",
            ),
            rcs: refusal(
                Channel::Rcs,
                "RCS shows only twilio/text, twilio/media, twilio/card and twilio/carousel, and the template has none of them; \
                 add twilio/text to it",
            ),
            messenger: refusal(
                Channel::Messenger,
                "Messenger shows only twilio/text, twilio/media, twilio/quick-reply, twilio/call-to-action and twilio/card, and \
                 the template has none of them; add twilio/text to it",
            ),
        }
    }

    /// Returns the reason why a channel cannot show the template; `None` if it can, or if Twilio decides.
    pub(crate) fn refusal(&self, channel: &Channel) -> Option<&'static str> {
        match channel {
            Channel::Sms => self.sms,
            Channel::WhatsApp => self.whatsapp,
            Channel::Rcs => self.rcs,
            Channel::Messenger => self.messenger,
            _ => None,
        }
    }
}

/// Returns the reason why a channel does not accept a file of a content. Only a file with a fixed name is checked.
fn media_refusal(channel: &Channel, content: &Value) -> Option<&'static str> {
    let files = content.get("media").and_then(Value::as_array);
    let mut files = files.into_iter().flatten().filter_map(Value::as_str);
    let is_rejected = files.any(|url| {
        let content_type = media_type_by_extension(url).filter(|_| !url.contains("{{"));
        content_type.is_some_and(|content_type| !accepts_type(channel, content_type))
    });
    is_rejected.then_some(
        "the channel does not accept the type of a file of the template; use another file",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn support(types: &Value) -> [bool; 4] {
        let types = types.as_object().unwrap().clone().into_iter().collect();
        let support = ChannelSupport::of(&types);
        let channels = [
            Channel::Sms,
            Channel::WhatsApp,
            Channel::Rcs,
            Channel::Messenger,
        ];
        channels.map(|channel| support.refusal(&channel).is_none())
    }

    #[test]
    fn template_is_shown_by_channels_with_one_of_its_types() {
        for (types, expected) in [
            (json!({"twilio/text": {}}), [true; 4]),
            (
                json!({"twilio/quick-reply": {}}),
                [false, true, false, true],
            ),
            (
                json!({"twilio/list-picker": {}}),
                [false, true, false, false],
            ),
            (json!({"twilio/location": {}}), [false, true, false, false]),
            (json!({"twilio/card": {}}), [false, true, true, true]),
            (json!({"twilio/carousel": {}}), [false, true, true, false]),
            (
                json!({"twilio/list-picker": {}, "twilio/text": {}}),
                [true; 4],
            ),
            (json!({"vendor/new": {}}), [true; 4]),
            (json!({}), [true; 4]),
            (
                json!({"twilio/media": {"media": ["https://h/a.webp"]}}),
                [false, true, false, true],
            ),
            (
                json!({"twilio/media": {"media": ["https://h/{{1}}.webp"]}}),
                [true; 4],
            ),
        ] {
            assert_eq!(support(&types), expected, "{types}");
        }
    }
}
