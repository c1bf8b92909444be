//! Rules for a template on the channels that it is sent on.

use serde_json::Value;

use super::content_types::type_on;
use super::finding::TemplateFinding;
use super::limits::{MAX_CARD_ACTIONS_ON_RCS, MAX_RCS_TITLE};
use super::placeholders::Samples;
use crate::address::Channel;

/// Returns a finding for each of these channels on which a message with the template would fail.
///
/// The findings of [`lint_template`](super::lint_template) are not among them.
pub fn lint_channels(template: &Value, channels: &[Channel]) -> Vec<TemplateFinding> {
    let Some(types) = template.get("types").and_then(Value::as_object) else {
        return Vec::new();
    };
    let samples = Samples::read(template.get("variables"));
    let given = || {
        let given = types.iter().filter(|(_, content)| !content.is_null());
        given.map(|(name, _)| name.as_str())
    };
    let mut findings = Vec::new();
    for channel in channels {
        match type_on(channel, given()) {
            None => {
                let channel = channel.as_str();
                findings.push(TemplateFinding::new(
                    "types",
                    format!("no content type can be shown on {channel}: messages fail with 63021"),
                    "add twilio/text, which every channel shows",
                ));
            }
            Some("twilio/card") if *channel == Channel::Rcs => {
                check_rcs_card(&types["twilio/card"], &samples, &mut findings);
            }
            Some(_) => {}
        }
    }
    findings
}

/// Checks the limits of a card that RCS alone has.
fn check_rcs_card(card: &Value, samples: &Samples, findings: &mut Vec<TemplateFinding>) {
    let title = card["title"].as_str().unwrap_or_default();
    let length = samples.fill(title).chars().count();
    if length > MAX_RCS_TITLE {
        findings.push(TemplateFinding::new(
            "types.twilio/card.title",
            format!("it has {length} characters; at most {MAX_RCS_TITLE} are allowed on rcs"),
            "shorten it, or move a part to the body",
        ));
    }
    // The buttons of a card without media are chips.
    let has_media = card["media"]
        .as_array()
        .is_some_and(|media| !media.is_empty());
    let actions = card["actions"].as_array().into_iter().flatten();
    let on_card = actions.filter(|action| action["chip_list"] != true).count();
    if has_media && on_card > MAX_CARD_ACTIONS_ON_RCS {
        findings.push(TemplateFinding::new(
            "types.twilio/card.actions",
            format!("it has {on_card} buttons; at most {MAX_CARD_ACTIONS_ON_RCS} fit on a card with media on rcs"),
            "use fewer buttons, or make them chips with \"chip_list\": true",
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lint_samples::{buttons, of_type, text};
    use super::*;

    fn reasons(template: &Value, channel: Channel) -> Vec<String> {
        let findings = lint_channels(template, &[channel]).into_iter();
        findings.map(|finding| finding.reason).collect()
    }

    #[test]
    fn each_channel_needs_a_type_that_it_shows() {
        use Channel as C;
        let list = of_type(
            "twilio/list-picker",
            json!({"body": "b", "button": "x", "items": []}),
        );
        for (template, channels) in [
            (text("Hello"), &[][..]),
            (list, &[C::Sms, C::Rcs, C::Messenger]),
            (
                of_type("twilio/location", json!({})),
                &[C::Sms, C::Rcs, C::Messenger],
            ),
            (of_type("twilio/quick-reply", json!({})), &[C::Sms, C::Rcs]),
            (
                of_type("twilio/schedule", json!({})),
                &[C::WhatsApp, C::Sms, C::Rcs, C::Messenger],
            ),
            (
                of_type("twilio/card", Value::Null),
                &[C::WhatsApp, C::Sms, C::Rcs, C::Messenger],
            ),
        ] {
            for channel in [C::WhatsApp, C::Sms, C::Rcs, C::Messenger] {
                let found = reasons(&template, channel.clone());
                assert_eq!(
                    !found.is_empty(),
                    channels.contains(&channel),
                    "{template}: {found:?}"
                );
            }
        }
        assert!(lint_channels(&json!({"types": 7}), &[C::Sms]).is_empty());
    }

    #[test]
    fn rcs_card_has_its_own_limits() {
        let media = json!(["https://h.example/a.png"]);
        let card = |title: &str, number, media: &Value| {
            of_type(
                "twilio/card",
                json!({"title": title, "media": media, "actions": buttons(number, "URL")}),
            )
        };
        for (template, reason) in [
            (card("t", 4, &media), ""),
            (card("t", 5, &json!([])), ""),
            (card("t", 5, &media), "5 buttons"),
            (card(&"t".repeat(201), 1, &media), "201 characters"),
        ] {
            let found = reasons(&template, Channel::Rcs).join("; ");
            assert!(
                found.contains(reason) && found.is_empty() == reason.is_empty(),
                "{found}"
            );
            assert!(reasons(&template, Channel::WhatsApp).is_empty());
        }
    }
}
