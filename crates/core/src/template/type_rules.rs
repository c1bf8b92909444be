//! Rules for the fields of each content type.

use super::action_rules::{
    CALLS_TO_ACTION, CARD_BUTTONS, CAROUSEL_BUTTONS, PAYMENTS, QUICK_REPLIES,
};
use super::limits::{
    MAX_BODY, MAX_BUTTONS, MAX_CALL_TO_ACTION_BODY, MAX_CARD_BUTTONS, MAX_CARDS, MAX_CAROUSEL_CARD,
    MAX_CHIPS, MAX_HEADER, MAX_LINK_TITLE, MAX_LIST_BUTTON, MAX_ROW_DESCRIPTION, MAX_ROW_ID,
    MAX_ROW_TITLE, MAX_ROWS, MAX_TEXT,
};
use super::part_rules::{TemplatePart, TypeLint};

/// Checks the fields of a known content type.
pub(super) fn check_type(lint: &mut TypeLint<'_>, name: &str, content: &TemplatePart<'_>) {
    if !content.value.is_object() {
        lint.add(&*content.path, "it is not an object", "write its fields");
        return;
    }
    match name {
        "twilio/text" => {
            let max = if lint.is_approved_type {
                MAX_BODY
            } else {
                MAX_TEXT
            };
            lint.body(content, "body", max, true);
        }
        "twilio/media" => {
            lint.body(content, "body", MAX_BODY, false);
            lint.media(content);
        }
        "twilio/location" => check_location(lint, content),
        "twilio/quick-reply" => {
            lint.body(content, "body", MAX_BODY, true);
            lint.actions(content, &QUICK_REPLIES, MAX_BUTTONS);
        }
        "twilio/call-to-action" => {
            lint.body(content, "body", MAX_CALL_TO_ACTION_BODY, true);
            lint.actions(content, &CALLS_TO_ACTION, MAX_BUTTONS);
        }
        "twilio/pay" => {
            lint.body(content, "body", MAX_BODY, true);
            lint.actions(content, &PAYMENTS, MAX_BUTTONS);
        }
        "twilio/list-picker" => check_list_picker(lint, content),
        "twilio/card" => check_card(lint, content),
        "whatsapp/card" => check_whatsapp_card(lint, content),
        "twilio/carousel" => check_carousel(lint, content),
        "twilio/catalog" => {
            lint.body(content, "body", MAX_BODY, true);
            lint.optional_text(content, "title", MAX_HEADER);
            lint.optional_text(content, "subtitle", MAX_HEADER);
            if content.field("items").is_none() && content.field("dynamic_items").is_none() {
                lint.add(
                    content.path_of("items"),
                    "it is missing",
                    "add items or dynamic_items",
                );
            }
        }
        "twilio/flows" | "whatsapp/flows" => {
            lint.body(content, "body", MAX_BODY, true);
            lint.required_text(content, "button_text", MAX_LINK_TITLE);
            lint.optional_text(content, "subtitle", MAX_HEADER);
            let needed = if name == "twilio/flows" {
                "pages"
            } else {
                "flow_id"
            };
            lint.required(content, needed);
        }
        "whatsapp/authentication" => {
            for action in lint.list(content, "actions", 1) {
                lint.required_text(&action, "copy_code_text", MAX_LINK_TITLE);
            }
        }
        // `twilio/schedule` is for a channel that replyhook does not know.
        _ => {}
    }
}

fn check_location(lint: &mut TypeLint<'_>, content: &TemplatePart<'_>) {
    for (name, max) in [("latitude", 90.0), ("longitude", 180.0)] {
        let Some(part) = lint.required(content, name) else {
            continue;
        };
        let is_valid = part
            .value
            .as_f64()
            .is_some_and(|degrees| degrees.abs() <= max);
        if !is_valid {
            let reason = format!("it is not a number from -{max} to {max}");
            lint.add(part.path, reason, "write degrees, without variables");
        }
    }
}

fn check_list_picker(lint: &mut TypeLint<'_>, content: &TemplatePart<'_>) {
    lint.body(content, "body", MAX_BODY, true);
    lint.required_text(content, "button", MAX_LIST_BUTTON);
    let rows = lint.list(content, "items", MAX_ROWS);
    let mut titles = Vec::new();
    let mut ids = Vec::new();
    for row in &rows {
        let title = lint.required_text(row, "item", MAX_ROW_TITLE);
        lint.keyword(&row.path_of("item"), title);
        titles.extend(title);
        ids.extend(lint.required_text(row, "id", MAX_ROW_ID));
        lint.optional_text(row, "description", MAX_ROW_DESCRIPTION);
    }
    let path = content.path_of("items");
    lint.distinct(&path, "item", titles.into_iter());
    lint.distinct(&path, "id", ids.into_iter());
}

fn check_card(lint: &mut TypeLint<'_>, content: &TemplatePart<'_>) {
    if content.field("title").is_none() && content.field("body").is_none() {
        lint.add(
            content.path_of("title"),
            "title and body are missing",
            "add one of them",
        );
    }
    // On WhatsApp, the title is the body of a card without one.
    if content.field("body").is_none() {
        lint.body(content, "title", MAX_BODY, false);
    } else {
        lint.optional_text(content, "title", MAX_BODY);
        lint.body(content, "body", MAX_BODY, false);
    }
    lint.optional_text(content, "subtitle", MAX_HEADER);
    if content.field("media").is_some() {
        lint.media(content);
    }
    // RCS takes 11 chips, and WhatsApp 10 buttons.
    if content.field("actions").is_some() {
        let max = if lint.is_approved_type {
            MAX_BUTTONS
        } else {
            MAX_CHIPS
        };
        lint.actions(content, &CARD_BUTTONS, max);
    }
}

fn check_whatsapp_card(lint: &mut TypeLint<'_>, content: &TemplatePart<'_>) {
    lint.body(content, "body", MAX_BODY, true);
    lint.optional_text(content, "header_text", MAX_HEADER);
    lint.optional_text(content, "footer", MAX_HEADER);
    if content.field("media").is_some() {
        lint.media(content);
        if content.field("header_text").is_some() {
            lint.add(
                content.path_of("header_text"),
                "a card has a header or media, and not both",
                "leave one out",
            );
        }
    }
    if content.field("actions").is_some() {
        lint.actions(content, &CARD_BUTTONS, MAX_BUTTONS);
    }
}

fn check_carousel(lint: &mut TypeLint<'_>, content: &TemplatePart<'_>) {
    lint.body(content, "body", MAX_BODY, true);
    let mut first = None;
    for card in lint.list(content, "cards", MAX_CARDS) {
        if let Some(file) = lint.required(&card, "media") {
            lint.media_url(&file);
        }
        lint.body(&card, "body", MAX_CAROUSEL_CARD, true);
        lint.optional_text(&card, "title", MAX_CAROUSEL_CARD);
        let length = ["title", "body"].into_iter().map(|name| {
            let text = card.field(name).and_then(|field| field.text());
            text.map_or(0, |text| lint.samples.fill(text).chars().count())
        });
        let length: usize = length.sum();
        if length > MAX_CAROUSEL_CARD {
            let reason = format!(
                "title and body have {length} characters; at most {MAX_CAROUSEL_CARD} are allowed"
            );
            lint.add(&*card.path, reason, "shorten them");
        }
        let kinds = lint.actions(&card, &CAROUSEL_BUTTONS, MAX_CARD_BUTTONS);
        if first.get_or_insert_with(|| kinds.clone()) != &kinds {
            lint.add(
                card.path_of("actions"),
                "the buttons differ in type or order from those of the first card",
                "give every card the same types in the same order",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::lint_samples::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "one row for each limit")]
    fn each_content_type_has_its_limits() {
        let actions = "types.twilio/quick-reply.actions";
        let calls = "types.twilio/call-to-action.actions";
        let card = |fields: Value| of_type("twilio/card", fields);
        let url = |url: &str| {
            let mut template = call(json!([{"type": "URL", "title": "Open", "url": url}]));
            template["variables"] = json!({"1": "a", "2": "b"});
            template
        };
        for (template, path, reason) in [
            (
                text(&"b".repeat(1025)),
                "types.twilio/text.body",
                "1025 characters",
            ),
            (
                of_type("twilio/text", json!({"body": ""})),
                "types.twilio/text.body",
                "empty",
            ),
            (
                of_type("twilio/text", json!({"text": "a"})),
                "types.twilio/text.body",
                "missing",
            ),
            (
                of_type("twilio/text", json!("a")),
                "types.twilio/text",
                "not an object",
            ),
            (
                of_type(
                    "twilio/quick-reply",
                    json!({"body": "b", "actions": buttons(11, "QUICK_REPLY")}),
                ),
                actions,
                "11 entries",
            ),
            (
                of_type("twilio/quick-reply", json!({"body": "b", "actions": []})),
                actions,
                "0 entries",
            ),
            (
                of_type("twilio/quick-reply", json!({"body": "b", "actions": {}})),
                actions,
                "not a list",
            ),
            (
                of_type(
                    "twilio/quick-reply",
                    json!({"body": "b", "actions": buttons(1, "URL")}),
                ),
                "types.twilio/quick-reply.actions[0].type",
                "not allowed",
            ),
            (
                of_type(
                    "twilio/quick-reply",
                    json!({"body": "b", "actions": [{"title": "a", "id": "1"}, {"title": "a", "id": "2"}]}),
                ),
                actions,
                "same `title`",
            ),
            (
                of_type(
                    "twilio/quick-reply",
                    json!({"body": "b", "actions": [{"title": "a", "id": "1"}, {"title": "b", "id": "1"}]}),
                ),
                actions,
                "same `id`",
            ),
            (
                quick(json!({"title": "t".repeat(21)})),
                "types.twilio/quick-reply.actions[0].title",
                "at most 20",
            ),
            (
                quick(json!({"title": "t", "id": "i".repeat(129)})),
                "types.twilio/quick-reply.actions[0].id",
                "at most 128",
            ),
            (
                quick(json!({"title": "Cancel."})),
                "types.twilio/quick-reply.actions[0].title",
                "opt-out keyword",
            ),
            (
                of_type(
                    "twilio/call-to-action",
                    json!({"body": "b".repeat(641), "actions": buttons(1, "URL")}),
                ),
                "types.twilio/call-to-action.body",
                "at most 640",
            ),
            (call(buttons(3, "URL")), calls, "3 buttons of type URL"),
            (
                call(buttons(2, "PHONE_NUMBER")),
                calls,
                "2 buttons of type PHONE_NUMBER",
            ),
            (
                call(json!([{"title": "t", "url": "https://h.example"}])),
                "types.twilio/call-to-action.actions[0].type",
                "missing",
            ),
            (
                call(json!([{"type": "COPY_CODE", "title": "t", "code": "c".repeat(16)}])),
                "types.twilio/call-to-action.actions[0].code",
                "at most 15",
            ),
            (
                call(json!([{"type": "PHONE_NUMBER", "title": "t", "phone": "555 0100"}])),
                "types.twilio/call-to-action.actions[0].phone",
                "E.164",
            ),
            (
                call(json!([{"type": "VOICE_CALL", "title": "t", "ttl_minutes": 0}])),
                "types.twilio/call-to-action.actions[0].ttl_minutes",
                "43200",
            ),
            (
                url(&format!("https://h.example/{}", "u".repeat(1983))),
                "types.twilio/call-to-action.actions[0].url",
                "at most 2000",
            ),
            (
                url("shop.example"),
                "types.twilio/call-to-action.actions[0].url",
                "absolute",
            ),
            (
                url("https://h.example{{1}}"),
                "types.twilio/call-to-action.actions[0].url",
                "not in the path",
            ),
            (
                url("{{1}}"),
                "types.twilio/call-to-action.actions[0].url",
                "begins with a variable",
            ),
            (
                url("https://h.example/{{1}}/{{2}}"),
                "types.twilio/call-to-action.actions[0].url",
                "one variable at the end",
            ),
            (
                with_sample(rows(11, &json!({"item": "a"}))),
                "types.twilio/list-picker.items",
                "11 entries",
            ),
            (
                with_sample(rows(1, &json!({"item": "t".repeat(25)}))),
                "types.twilio/list-picker.items[0].item",
                "at most 24",
            ),
            (
                with_sample(rows(
                    1,
                    &json!({"item": "a", "description": "d".repeat(73)}),
                )),
                "types.twilio/list-picker.items[0].description",
                "at most 72",
            ),
            (
                with_sample(rows(1, &json!({"item": "quit"}))),
                "types.twilio/list-picker.items[0].item",
                "QUIT is an opt-out keyword",
            ),
            (
                of_type(
                    "twilio/media",
                    json!({"media": ["https://h.example/a.png", "https://h.example/b.png"]}),
                ),
                "types.twilio/media.media",
                "takes one",
            ),
            (
                of_type("twilio/media", json!({"media": ["a.png"]})),
                "types.twilio/media.media[0]",
                "absolute",
            ),
            (
                of_type("twilio/location", json!({"latitude": 91, "longitude": 0})),
                "types.twilio/location.latitude",
                "from -90 to 90",
            ),
            (
                card(json!({"title": "t", "subtitle": "s".repeat(61)})),
                "types.twilio/card.subtitle",
                "at most 60",
            ),
            (
                card(json!({"title": "t", "body": "b".repeat(1025)})),
                "types.twilio/card.body",
                "at most 1024",
            ),
            (
                card(json!({"title": "t", "actions": buttons(11, "QUICK_REPLY")})),
                "types.twilio/card.actions",
                "11 entries",
            ),
            (card(json!({})), "types.twilio/card.title", "are missing"),
            (
                of_type(
                    "whatsapp/card",
                    json!({"body": "b", "footer": "f".repeat(61)}),
                ),
                "types.whatsapp/card.footer",
                "at most 60",
            ),
            (
                of_type(
                    "whatsapp/card",
                    json!({"body": "b", "header_text": "h".repeat(61)}),
                ),
                "types.whatsapp/card.header_text",
                "at most 60",
            ),
            (
                of_type(
                    "whatsapp/card",
                    json!({"body": "b", "header_text": "h", "media": ["https://h.example/a.png"]}),
                ),
                "types.whatsapp/card.header_text",
                "not both",
            ),
            (carousel(11, 1), "types.twilio/carousel.cards", "11 entries"),
            (
                of_type("twilio/catalog", json!({"body": "b"})),
                "types.twilio/catalog.items",
                "missing",
            ),
            (
                of_type("whatsapp/flows", json!({"body": "b", "button_text": "t"})),
                "types.whatsapp/flows.flow_id",
                "missing",
            ),
            (
                of_type("whatsapp/authentication", json!({"actions": []})),
                "types.whatsapp/authentication.actions",
                "0 entries",
            ),
        ] {
            assert_wrong(&template, path, reason);
        }
        let mixed = json!([
            buttons(1, "QUICK_REPLY")[0],
            buttons(2, "URL")[1],
            buttons(3, "QUICK_REPLY")[2]
        ]);
        assert_wrong(
            &card(json!({"title": "t", "actions": mixed})),
            "types.twilio/card.actions",
            "mixed",
        );
        let long = found(&carousel(1, 161), false);
        assert!(
            long.iter()
                .any(|line| line.contains("title and body have 161")),
            "{long:?}"
        );
        let mut cards = carousel(2, 1);
        cards["types"]["twilio/carousel"]["cards"][1]["actions"] = buttons(1, "URL");
        assert_wrong(
            &cards,
            "types.twilio/carousel.cards[1].actions",
            "first card",
        );
    }
}
