//! Rules for sending content: which types need an approval, and the limits of the channels.
//!
//! Source: twilio.com/docs/content. Where its pages differ, the stricter limit applies.

use std::collections::{BTreeMap, BTreeSet};

use super::content_kind::ContentKind;
use super::content_type::{
    ActionFields, CardFields, CarouselFields, ContentAction, ContentActionKind, ListFields,
    TypedContent,
};
use replyhook_core::address::Channel;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::template::limits::{
    MAX_BODY, MAX_BUTTON_ID, MAX_BUTTON_TITLE, MAX_BUTTONS, MAX_CALL_TO_ACTION_BODY,
    MAX_CARD_ACTIONS_ON_RCS, MAX_CAROUSEL_CARD, MAX_CHIPS, MAX_HEADER, MAX_LINK_TITLE,
    MAX_LIST_BUTTON, MAX_RCS_TITLE, MAX_ROW_DESCRIPTION, MAX_ROW_ID, MAX_ROW_TITLE,
    MAX_SESSION_BUTTONS, MAX_TEXT,
};

/// Reason why a message fails: Twilio's error code, and an explanation for the debugger.
pub(crate) type ContentRefusal = (ErrorCode, String);

const REFUSED: ErrorCode = ErrorCode(63005);
const POLICY: ErrorCode = ErrorCode(63013);
const INVALID: ErrorCode = ErrorCode(63021);

/// Returns the reason why a channel refuses filled content.
pub(crate) fn refusal(
    kind: ContentKind,
    content: &TypedContent,
    channel: &Channel,
    is_approved: bool,
) -> Option<ContentRefusal> {
    // On WhatsApp only. RCS knows no approval, and Messenger takes content of its window only.
    if *channel == Channel::WhatsApp
        && !is_approved
        && let Some(problem) = approval_problem(kind, content)
    {
        return Some((REFUSED, problem));
    }
    match content {
        TypedContent::Text(text) => too_long("body", &text.body, MAX_TEXT),
        TypedContent::Media(media) => {
            let is_whatsapp = *channel == Channel::WhatsApp;
            (is_whatsapp && media.media.len() > 1)
                .then(|| (INVALID, "media: WhatsApp takes one file".to_owned()))
        }
        TypedContent::QuickReply(question) => {
            too_long("body", &question.body, MAX_BODY).or_else(|| button_problem(&question.actions))
        }
        TypedContent::CallToAction(question) => {
            too_long("body", &question.body, MAX_CALL_TO_ACTION_BODY)
                .or_else(|| button_problem(&question.actions))
        }
        TypedContent::ListPicker(list) => list_problem(list),
        TypedContent::Card(card) => card_problem(card, channel),
        TypedContent::Carousel(carousel) => carousel_problem(carousel),
        _ => None,
    }
}

/// Returns the reason if WhatsApp takes this content only as an approved template.
fn approval_problem(kind: ContentKind, content: &TypedContent) -> Option<String> {
    use ContentActionKind as A;
    use ContentKind as K;
    let problem = match content {
        _ if matches!(
            kind,
            K::Carousel | K::Flows | K::WhatsAppFlows | K::Authentication
        ) =>
        {
            return Some(format!("{kind} needs an approved template"));
        }
        TypedContent::QuickReply(ActionFields { actions, .. }) => (actions.len()
            > MAX_SESSION_BUTTONS)
            .then(|| format!("at most {MAX_SESSION_BUTTONS} quick replies")),
        TypedContent::CallToAction(ActionFields { actions, .. }) if kind == K::CallToAction => {
            let allowed = [A::Url, A::VoiceCall, A::VoiceCallRequest];
            session_actions_problem(actions, &allowed)
        }
        TypedContent::Card(CardFields { actions, .. }) => {
            let allowed = [A::Url, A::VoiceCall, A::VoiceCallRequest, A::QuickReply];
            session_actions_problem(actions, &allowed)
        }
        _ => None,
    }?;
    Some(format!("without an approved template: {problem}"))
}

fn session_actions_problem(
    actions: &[ContentAction],
    allowed: &[ContentActionKind],
) -> Option<String> {
    let kinds: Vec<_> = actions.iter().map(ContentAction::kind).collect();
    if kinds.iter().any(|kind| !allowed.contains(kind)) {
        return Some("no buttons of this type".to_owned());
    }
    if kinds.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some("no buttons of several types".to_owned());
    }
    let max = if kinds.first() == Some(&ContentActionKind::Url) {
        1
    } else {
        MAX_SESSION_BUTTONS
    };
    (kinds.len() > max).then(|| format!("at most {max} buttons of this type"))
}

fn list_problem(list: &ListFields) -> Option<ContentRefusal> {
    let rows = || {
        list.items.iter().find_map(|row| {
            too_long("item", &row.item, MAX_ROW_TITLE)
                .or_else(|| too_long("id", &row.id, MAX_ROW_ID))
                .or_else(|| {
                    let description = row.description.as_deref().unwrap_or_default();
                    too_long("description", description, MAX_ROW_DESCRIPTION)
                })
                .map(|(_, problem)| (REFUSED, problem))
        })
    };
    let titles = list.items.iter().map(|row| row.item.as_str());
    let ids = list.items.iter().map(|row| row.id.as_str());
    too_long("body", &list.body, MAX_BODY)
        .or_else(|| {
            too_long("button", &list.button, MAX_LIST_BUTTON).map(|(_, problem)| (REFUSED, problem))
        })
        .or_else(rows)
        .or_else(|| repeated("items", titles))
        .or_else(|| repeated("ids", ids))
}

fn card_problem(card: &CardFields, channel: &Channel) -> Option<ContentRefusal> {
    let max_title = if *channel == Channel::Rcs {
        MAX_RCS_TITLE
    } else {
        MAX_BODY
    };
    let title = card.title.as_deref().unwrap_or_default();
    let body = card.body.as_deref().unwrap_or_default();
    let subtitle = card.subtitle.as_deref().unwrap_or_default();
    let max_body = if *channel == Channel::Rcs {
        MAX_TEXT
    } else {
        MAX_BODY
    };
    let texts = too_long("title", title, max_title)
        .or_else(|| too_long("body", body, max_body))
        .or_else(|| too_long("subtitle", subtitle, MAX_HEADER));
    let number = || {
        if *channel != Channel::Rcs {
            return too_many(card.actions.len(), MAX_BUTTONS);
        }
        // A card without media is a text with chips.
        let is_chip = |action: &&ContentAction| action.chip_list || card.media.is_empty();
        let chips = card.actions.iter().filter(is_chip).count();
        too_many(chips, MAX_CHIPS)
            .or_else(|| too_many(card.actions.len() - chips, MAX_CARD_ACTIONS_ON_RCS))
    };
    texts
        .or_else(number)
        .or_else(|| button_problem(&card.actions))
}

fn carousel_problem(carousel: &CarouselFields) -> Option<ContentRefusal> {
    carousel.cards.iter().find_map(|card| {
        let title = card.title.as_deref().unwrap_or_default();
        let length = title.chars().count() + card.body.chars().count();
        if length > MAX_CAROUSEL_CARD {
            let problem = format!(
                "cards: title and body have {length} characters; at most {MAX_CAROUSEL_CARD}"
            );
            return Some((INVALID, problem));
        }
        card.actions.iter().find_map(|action| {
            too_long("title", &action.title, MAX_LINK_TITLE).map(|(_, problem)| (REFUSED, problem))
        })
    })
}

/// Returns a refusal for buttons that are too long or not distinct.
fn button_problem(actions: &[ContentAction]) -> Option<ContentRefusal> {
    let long = actions.iter().find_map(|action| {
        let max = if action.kind() == ContentActionKind::QuickReply {
            MAX_BUTTON_TITLE
        } else {
            MAX_LINK_TITLE
        };
        let id = action.id.as_deref().unwrap_or_default();
        too_long("title", &action.title, max)
            .or_else(|| too_long("id", id, MAX_BUTTON_ID))
            .map(|(_, problem)| (REFUSED, problem))
    });
    let titles = actions.iter().map(|action| action.title.as_str());
    let ids = actions.iter().filter_map(|action| action.id.as_deref());
    long.or_else(|| repeated("titles", titles))
        .or_else(|| repeated("ids", ids))
}

fn too_long(name: &str, text: &str, max: usize) -> Option<ContentRefusal> {
    let length = text.chars().count();
    (length > max).then(|| {
        let problem = format!("{name}: {length} characters; at most {max}");
        (INVALID, problem)
    })
}

fn too_many(number: usize, max: usize) -> Option<ContentRefusal> {
    (number > max).then(|| (REFUSED, format!("actions: {number}; at most {max}")))
}

// WhatsApp and Messenger reject a message in which two buttons are the same.
fn repeated<'a>(name: &str, mut texts: impl Iterator<Item = &'a str>) -> Option<ContentRefusal> {
    let mut known = BTreeSet::new();
    texts
        .any(|text| !known.insert(text))
        .then(|| (REFUSED, format!("{name}: two are equal")))
}

/// Returns a refusal for values that an approved WhatsApp template must not contain.
pub(crate) fn value_refusal(values: &BTreeMap<String, String>) -> Option<ContentRefusal> {
    let is_allowed = |value: &String| {
        !value.is_empty() && !value.contains(['\n', '\r', '\t']) && !value.contains("     ")
    };
    let (name, _) = values.iter().find(|(_, value)| !is_allowed(value))?;
    let problem = format!(
        "variable {name}: an approved template takes no empty value, line break, tab or more than four blanks in a row"
    );
    Some((POLICY, problem))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::content_kind::type_for;
    use super::super::content_type::parse_fields;
    use super::*;

    fn code(types: &Value, channel: &Channel, is_approved: bool) -> Option<u32> {
        let (kind, fields) = type_for(types.as_object().unwrap(), channel).unwrap();
        let content = parse_fields(kind, fields).ok().unwrap();
        refusal(kind, &content, channel, is_approved).map(|(code, _)| code.0)
    }

    fn buttons(number: usize) -> Value {
        let action = |n: usize| json!({"type": "QUICK_REPLY", "title": format!("b{n}"), "id": n.to_string()});
        (0..number).map(action).collect()
    }

    #[test]
    fn unapproved_content_is_limited_on_whatsapp_only() {
        let whatsapp = Channel::WhatsApp;
        let reply = |n| json!({"twilio/quick-reply": {"body": "b", "actions": buttons(n)}});
        assert_eq!(code(&reply(3), &whatsapp, false), None);
        assert_eq!(code(&reply(4), &whatsapp, false), Some(63005));
        assert_eq!(code(&reply(4), &whatsapp, true), None);
        assert_eq!(code(&reply(10), &Channel::Messenger, false), None);
        let link = json!({"type": "URL", "title": "Open", "url": "https://h"});
        let second = json!({"type": "URL", "title": "Open it", "url": "https://h"});
        let phone = json!({"type": "PHONE_NUMBER", "title": "Call", "phone": "+15550001111"});
        for kind in ["twilio/call-to-action", "twilio/card"] {
            let with = |actions: Value| json!({kind: {"body": "b", "actions": actions}});
            assert_eq!(code(&with(json!([link])), &whatsapp, false), None);
            for actions in [json!([phone]), json!([link, phone]), json!([link, second])] {
                assert_eq!(code(&with(actions.clone()), &whatsapp, false), Some(63005));
                assert_eq!(code(&with(actions), &whatsapp, true), None);
            }
        }
        let card = json!({"body": "b", "media": "https://h/a.png", "actions": buttons(1)});
        let carousel = json!({"twilio/carousel": {"body": "b", "cards": [card]}});
        assert_eq!(code(&carousel, &whatsapp, false), Some(63005));
        assert_eq!(code(&carousel, &whatsapp, true), None);
        assert_eq!(code(&carousel, &Channel::Rcs, false), None);
    }

    #[test]
    fn texts_over_the_limits_are_refused() {
        let whatsapp = Channel::WhatsApp;
        let reply = |body: usize, title: usize, id: usize| {
            json!({"twilio/quick-reply": {"body": "b".repeat(body), "actions": [
                {"title": "ü".repeat(title), "id": "i".repeat(id)},
            ]}})
        };
        assert_eq!(code(&reply(1024, 20, 128), &whatsapp, false), None);
        assert_eq!(code(&reply(1025, 20, 128), &whatsapp, false), Some(63021));
        assert_eq!(code(&reply(1, 21, 128), &whatsapp, false), Some(63005));
        assert_eq!(code(&reply(1, 20, 129), &whatsapp, false), Some(63005));
        let list = |item: usize, description: usize, button: usize| {
            json!({"twilio/list-picker": {"body": "b", "button": "b".repeat(button), "items": [
                {"item": "t".repeat(item), "id": "i", "description": "d".repeat(description)},
            ]}})
        };
        assert_eq!(code(&list(24, 72, 20), &whatsapp, false), None);
        for too_long in [list(25, 1, 1), list(1, 73, 1), list(1, 1, 21)] {
            assert_eq!(code(&too_long, &whatsapp, false), Some(63005));
        }
        let same = json!({"twilio/quick-reply": {"body": "b", "actions": [
            {"title": "a", "id": "1"}, {"title": "a", "id": "2"},
        ]}});
        assert_eq!(code(&same, &whatsapp, false), Some(63005));
    }

    #[test]
    fn rcs_takes_eleven_chips_or_four_buttons() {
        let rcs = Channel::Rcs;
        let chips = |n| json!({"twilio/card": {"body": "b", "actions": buttons(n)}});
        assert_eq!(code(&chips(11), &rcs, false), None);
        let card = |n| json!({"twilio/card": {"title": "t", "media": ["https://h/a.png"], "actions": buttons(n)}});
        assert_eq!(code(&card(4), &rcs, false), None);
        assert_eq!(code(&card(5), &rcs, false), Some(63005));
    }

    #[test]
    fn values_of_approved_templates_are_checked() {
        let refused =
            |value: &str| value_refusal(&BTreeMap::from([("1".to_owned(), value.to_owned())]));
        assert!(refused("Ana    B").is_none());
        for value in ["", "a\nb", "a\tb", "a     b"] {
            assert_eq!(refused(value).unwrap().0.0, 63013, "{value:?}");
        }
    }
}
