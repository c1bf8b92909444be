//! Templates for the tests of the rules, and assertions on their findings.

use serde_json::{Map, Value, json};

use super::lint::lint_template;

/// A template without findings, with all kinds of parts.
pub(super) fn card() -> Value {
    json!({
        "friendly_name": "order_ready", "language": "pt_BR", "category": "UTILITY",
        "variables": {"1": "Ana", "2": "42"},
        "types": {
            "twilio/text": {"body": "Order {{2}} is ready, {{1}}"},
            "whatsapp/card": {
                "body": "Hi {{1}}, your order is ready for you.", "header_text": "Your order", "footer": "The shop",
                "actions": [
                    {"type": "QUICK_REPLY", "title": "On my way", "id": "way"},
                    {"type": "QUICK_REPLY", "title": "Tomorrow", "id": "tomorrow"},
                    {"type": "URL", "title": "Track it", "url": "https://shop.example/{{2}}"},
                    {"type": "PHONE_NUMBER", "title": "Call us", "phone": "+15550001111"},
                ],
            },
        },
    })
}

pub(super) fn of_type(name: &str, content: Value) -> Value {
    let types = Map::from_iter([(name.to_owned(), content)]);
    json!({"friendly_name": "a", "language": "en", "types": types})
}

pub(super) fn text(body: &str) -> Value {
    let samples = json!({"1": "Ana", "2": "noon", "name": "Ben"});
    let types = json!({"twilio/text": {"body": body}});
    json!({"friendly_name": "a", "language": "en", "variables": samples, "types": types})
}

pub(super) fn buttons(number: usize, kind: &str) -> Value {
    let button = |n: usize| {
        json!({"type": kind, "title": format!("b{n}"), "id": format!("i{n}"),
            "url": "https://h.example/a", "phone": "+15550001111", "code": "ABC"})
    };
    (0..number).map(button).collect()
}

pub(super) fn quick(action: Value) -> Value {
    let actions = Value::from(vec![action]);
    with_actions("twilio/quick-reply", actions)
}

pub(super) fn call(actions: Value) -> Value {
    with_actions("twilio/call-to-action", actions)
}

fn with_actions(name: &str, actions: Value) -> Value {
    let mut content = json!({"body": "When?"});
    content["actions"] = actions;
    of_type(name, content)
}

pub(super) fn rows(number: usize, row: &Value) -> Value {
    let row = |n: usize| {
        let mut row = row.clone();
        row["id"] = json!(n.to_string());
        if n > 0 {
            row["item"] = json!(n.to_string());
        }
        row
    };
    let items: Vec<_> = (0..number).map(row).collect();
    of_type(
        "twilio/list-picker",
        json!({"body": "{{1}}", "button": "Days", "items": items}),
    )
}

pub(super) fn carousel(number: usize, body: usize) -> Value {
    let card = json!({"body": "b".repeat(body), "media": "https://h.example/a.png", "actions": buttons(2, "URL")});
    of_type(
        "twilio/carousel",
        json!({"body": "Look", "cards": vec![card; number]}),
    )
}

/// Returns the findings as `path: reason`.
pub(super) fn found(template: &Value, is_submitted: bool) -> Vec<String> {
    let findings = lint_template(template, is_submitted).into_iter();
    let lines = findings.map(|finding| format!("{}: {}", finding.path, finding.reason));
    lines.collect()
}

/// Checks that a template has no finding.
pub(super) fn assert_right(template: &Value) {
    assert_eq!(found(template, false), [""; 0], "{template}");
}

/// Checks that a template has one finding with this path, and this part of the reason.
pub(super) fn assert_wrong(template: &Value, path: &str, reason: &str) {
    let found = found(template, false);
    assert_eq!(found.len(), 1, "{template}: {found:#?}");
    let line = &found[0];
    assert!(
        line.starts_with(&format!("{path}: ")) && line.contains(reason),
        "{line}"
    );
}

/// Sets a sample of {{1}}.
pub(super) fn with_sample(mut template: Value) -> Value {
    template["variables"] = json!({"1": "Which day?"});
    template
}
