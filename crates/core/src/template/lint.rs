//! Rules for a whole template: its keys, names, language, category and variables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::content_types::{known_types, opens_conversation, whatsapp_type};
use super::declared::known_keys;
use super::finding::TemplateFinding;
use super::languages::{is_language, suggested_language};
use super::limits::{MAX_NAME, MAX_VARIABLE_NAME, MAX_VARIABLE_VALUE, MAX_VARIABLES};
use super::part_rules::{TemplatePart, TypeLint};
use super::placeholders::Samples;
use super::type_rules::check_type;
use super::variable_rules::{check_numbers, check_placeholders};

/// Categories of WhatsApp.
const CATEGORIES: [&str; 3] = ["UTILITY", "MARKETING", "AUTHENTICATION"];

/// Returns the problems of a template: all that Twilio, or WhatsApp's approval, would reject.
///
/// `is_submitted` requires what a submission to WhatsApp needs.
pub fn lint_template(template: &Value, is_submitted: bool) -> Vec<TemplateFinding> {
    let mut findings = Vec::new();
    check_keys(template, &mut findings);
    check_names(template, &mut findings);
    check_language(template, &mut findings);
    check_category(template, is_submitted, &mut findings);
    check_samples(template, &mut findings);
    check_types(template, is_submitted, &mut findings);
    findings
}

/// Returns a finding for each template whose name and language an earlier one of the file has, with its index.
pub fn repeated_templates(templates: &[Value]) -> Vec<(usize, TemplateFinding)> {
    let mut known = BTreeSet::new();
    let mut findings = Vec::new();
    for (index, template) in templates.iter().enumerate() {
        let text = |name: &str| template.get(name).and_then(Value::as_str);
        if let (Some(name), Some(language)) = (text("friendly_name"), text("language"))
            && !known.insert((name, language))
        {
            let reason = "another template of the file has this name and language";
            let finding =
                TemplateFinding::new("friendly_name", reason, "rename one, or merge them");
            findings.push((index, finding));
        }
    }
    findings
}

fn check_keys(template: &Value, findings: &mut Vec<TemplateFinding>) {
    for name in template
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        if !known_keys().any(|known| known == name) {
            let known: Vec<_> = known_keys().collect();
            findings.push(TemplateFinding::new(
                name,
                "the key is unknown",
                format!("use {}", known.join(", ")),
            ));
        }
    }
}

fn check_names(template: &Value, findings: &mut Vec<TemplateFinding>) {
    let friendly_name = required_text(template, "friendly_name", findings);
    // WhatsApp gets `name`, and `friendly_name` without it.
    let (path, name) = match template.get("name") {
        Some(Value::String(name)) => ("name", name.as_str()),
        Some(Value::Null) | None => match friendly_name {
            Some(name) => ("friendly_name", name),
            None => return,
        },
        Some(_) => {
            findings.push(TemplateFinding::new(
                "name",
                "it is not a text",
                "write it as a text",
            ));
            return;
        }
    };
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_allowed) {
        findings.push(TemplateFinding::new(
            path,
            "WhatsApp does not take this name",
            "use lower case letters, digits and underscores, here or in the key `name`",
        ));
    }
    for (path, name) in [("friendly_name", friendly_name), (path, Some(name))] {
        let length = name.unwrap_or_default().chars().count();
        if length > MAX_NAME {
            let reason = format!("it has {length} characters; at most {MAX_NAME} are allowed");
            findings.push(TemplateFinding::new(path, reason, "shorten it"));
            return;
        }
    }
}

fn check_language(template: &Value, findings: &mut Vec<TemplateFinding>) {
    let Some(language) = required_text(template, "language", findings) else {
        return;
    };
    if !is_language(language) {
        let remedy = match suggested_language(language) {
            Some(known) => format!("use `{known}`"),
            None => "use a code of Meta's list, such as `en`, `en_US` or `pt_BR`".to_owned(),
        };
        let reason = "WhatsApp does not know this language code";
        findings.push(TemplateFinding::new("language", reason, remedy));
    }
}

fn check_category(template: &Value, is_submitted: bool, findings: &mut Vec<TemplateFinding>) {
    let known = CATEGORIES.join(", ");
    match template.get("category").filter(|value| !value.is_null()) {
        None if is_submitted => findings.push(TemplateFinding::new(
            "category",
            "it is missing, and WhatsApp's approval needs it",
            format!("add one of {known}"),
        )),
        Some(category)
            if !category
                .as_str()
                .is_some_and(|text| CATEGORIES.contains(&text)) =>
        {
            let reason = "WhatsApp does not know this category";
            findings.push(TemplateFinding::new(
                "category",
                reason,
                format!("use one of {known}"),
            ));
        }
        _ => {}
    }
}

fn required_text<'v>(
    template: &'v Value,
    name: &str,
    findings: &mut Vec<TemplateFinding>,
) -> Option<&'v str> {
    let (reason, remedy) = match template.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => return Some(text),
        Some(Value::String(_)) => ("it is empty", "write a text"),
        Some(Value::Null) | None => ("it is missing", "add it"),
        Some(_) => ("it is not a text", "write it as a text"),
    };
    findings.push(TemplateFinding::new(name, reason, remedy));
    None
}

fn check_samples(template: &Value, findings: &mut Vec<TemplateFinding>) {
    let Some(variables) = template.get("variables").filter(|value| !value.is_null()) else {
        return;
    };
    let Some(samples) = variables.as_object() else {
        let remedy = "write a sample for each variable, such as {\"1\": \"Ana\"}";
        findings.push(TemplateFinding::new(
            "variables",
            "it is not an object",
            remedy,
        ));
        return;
    };
    if samples.len() > MAX_VARIABLES {
        let reason = format!(
            "it has {}; at most {MAX_VARIABLES} are allowed",
            samples.len()
        );
        findings.push(TemplateFinding::new(
            "variables",
            reason,
            "use fewer variables",
        ));
    }
    for (name, sample) in samples {
        let path = format!("variables.{name}");
        let length = name.chars().count();
        if !(1..=MAX_VARIABLE_NAME).contains(&length) || name.contains(char::is_whitespace) {
            let reason = format!(
                "the name of a variable has 1 to {MAX_VARIABLE_NAME} characters without blanks"
            );
            findings.push(TemplateFinding::new(&*path, reason, "rename the variable"));
        }
        let text = match sample {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                findings.push(TemplateFinding::new(
                    path,
                    "it is not a text",
                    "write a sample",
                ));
                continue;
            }
        };
        if text.chars().count() > MAX_VARIABLE_VALUE {
            let reason = format!("it has more than {MAX_VARIABLE_VALUE} characters");
            findings.push(TemplateFinding::new(&*path, reason, "shorten it"));
        }
        if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
            findings.push(TemplateFinding::new(
                path,
                "WhatsApp takes no line break, tab or more than four blanks in a row in a value",
                "write the sample on one line",
            ));
        }
    }
}

fn check_types(template: &Value, is_submitted: bool, findings: &mut Vec<TemplateFinding>) {
    let types = template.get("types").filter(|value| !value.is_null());
    let Some(fields) = types
        .and_then(Value::as_object)
        .filter(|types| !types.is_empty())
    else {
        let remedy = "add a content type, such as {\"twilio/text\": {\"body\": \"…\"}}";
        findings.push(TemplateFinding::new(
            "types",
            "it has no content type",
            remedy,
        ));
        return;
    };
    let given = fields.iter().filter(|(_, content)| !content.is_null());
    let given: BTreeMap<_, _> = given
        .map(|(name, content)| (name.as_str(), content))
        .collect();
    let on_whatsapp = whatsapp_type(given.keys().copied());
    let samples = Samples::read(template.get("variables"));
    let mut used = BTreeSet::new();
    for (name, content) in &given {
        let part = TemplatePart {
            path: format!("types.{name}"),
            value: content,
        };
        if !known_types().any(|known| known == *name) {
            let known: Vec<_> = known_types().collect();
            let remedy = format!("use {}", known.join(", "));
            findings.push(TemplateFinding::new(
                part.path,
                "the content type is unknown",
                remedy,
            ));
            continue;
        }
        let mut lint = TypeLint {
            samples: &samples,
            is_approved_type: on_whatsapp == Some(*name) && opens_conversation(name),
            findings,
        };
        check_type(&mut lint, name, &part);
        check_placeholders(&part, &samples, &mut used, findings);
    }
    if is_submitted {
        check_submitted_type(on_whatsapp, findings);
    }
    check_numbers(&used, findings);
}

fn check_submitted_type(on_whatsapp: Option<&str>, findings: &mut Vec<TemplateFinding>) {
    let reason = match on_whatsapp {
        Some(name) if opens_conversation(name) => return,
        Some(name) => {
            format!("WhatsApp takes {name} only while the customer service window is open")
        }
        None => "it has no content type for WhatsApp".to_owned(),
    };
    findings.push(TemplateFinding::new(
        "types",
        reason,
        "create it without a submission",
    ));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::lint_samples::*;
    use super::*;

    #[test]
    fn template_within_all_rules_has_no_finding() {
        assert_eq!(found(&card(), true), [""; 0]);
        let rich = "twilio/quick-reply";
        for right in [
            text("No variables"),
            text(&"b".repeat(1024)),
            text("Dear {{name}}, it is ready."),
            // On SMS only, so that WhatsApp's rules do not apply.
            json!({"friendly_name": "a", "language": "en", "variables": {"1": "x"}, "types": {
                rich: {"body": "When?", "actions": [{"title": "Yes", "id": "y"}]},
                "twilio/text": {"body": format!("{{{{1}}}}{}", "b".repeat(1595))},
            }}),
            of_type(
                rich,
                json!({"body": "b", "actions": buttons(10, "QUICK_REPLY")}),
            ),
            quick(json!({"title": "t".repeat(20), "id": "i".repeat(128)})),
            quick(json!({"title": "Cancel it", "type": null})),
            call(buttons(2, "URL")),
            call(
                json!([{"type": "URL", "title": "t".repeat(25), "url": format!("https://h.example/{}", "u".repeat(1980))}]),
            ),
            call(json!([{"type": "COPY_CODE", "title": "Copy", "code": "c".repeat(15)}])),
            with_sample(rows(
                10,
                &json!({"item": "t".repeat(24), "description": "d".repeat(72)}),
            )),
            of_type(
                "twilio/media",
                json!({"media": ["https://h.example/a.png"]}),
            ),
            of_type(
                "twilio/location",
                json!({"latitude": -90, "longitude": 180.0}),
            ),
            of_type(
                "twilio/card",
                json!({"title": "Hi there", "subtitle": "s".repeat(60), "actions": buttons(10, "QUICK_REPLY")}),
            ),
            carousel(10, 160),
            of_type("twilio/catalog", json!({"body": "Look", "items": []})),
            of_type(
                "whatsapp/flows",
                json!({"body": "b", "button_text": "Book", "flow_id": "1"}),
            ),
            of_type(
                "whatsapp/authentication",
                json!({"actions": [{"copy_code_text": "Copy"}]}),
            ),
            of_type("twilio/schedule", json!({})),
        ] {
            assert_right(&right);
        }
    }

    #[test]
    fn each_part_of_a_template_has_its_rule() {
        for (key, value, reason) in [
            ("friendly_name", json!(null), "missing"),
            ("friendly_name", json!(7), "not a text"),
            ("friendly_name", json!(" "), "empty"),
            (
                "friendly_name",
                json!("Order ready"),
                "does not take this name",
            ),
            ("friendly_name", json!("órder"), "does not take this name"),
            ("friendly_name", json!("n".repeat(513)), "at most 512"),
            ("name", json!("Order"), "does not take this name"),
            ("name", json!(["a"]), "not a text"),
            ("language", json!(null), "missing"),
            ("language", json!("pt-BR"), "does not know this language"),
            ("category", json!("utility"), "does not know this category"),
            ("category", json!("NEWS"), "does not know this category"),
            ("varibles", json!({}), "unknown"),
            ("types", json!({}), "no content type"),
            ("types", json!({"twilio/tex": {}}), "unknown"),
            ("variables", json!(["Ana"]), "not an object"),
        ] {
            let mut template = text("Hello there");
            template[key] = value;
            let path = match reason {
                "unknown" if key == "types" => "types.twilio/tex",
                _ => key,
            };
            assert_wrong(&template, path, reason);
        }
        // Another name for WhatsApp makes any friendly name right.
        let mut named = text("Hello there");
        named["friendly_name"] = json!("Order ready!");
        named["name"] = json!("order_ready");
        assert_right(&named);
        let missing = found(&text("Hello there"), true);
        assert_eq!(
            missing,
            ["category: it is missing, and WhatsApp's approval needs it"]
        );
        let mut list = with_sample(rows(1, &json!({"item": "a"})));
        list["category"] = json!("UTILITY");
        let session = found(&list, true);
        assert!(
            session[0].contains("only while the customer service window is open"),
            "{session:?}"
        );
    }

    #[test]
    fn variables_have_their_rules() {
        let body = "types.twilio/text.body";
        for (template, path, reason) in [
            (text("{{1}} is your code for today"), body, "starts with"),
            (text("Your code for today is {{1}}."), body, "ends with"),
            (
                text("Dear {{1}} {{2}}, thank you for this visit."),
                body,
                "next to each other",
            ),
            (
                text("Dear {{1}}, that is {{1}} from us to you."),
                body,
                "occurs twice",
            ),
            (
                text("Hi {{2}}, how are you?"),
                "types",
                "skip the number {{1}}",
            ),
            (
                with_sample(text("Hi {{1}} and {{3}}, how are you today?")),
                body,
                "{{3}} has no sample",
            ),
            (
                text("Hi {{missing}}, how are you?"),
                body,
                "{{missing}} has no sample",
            ),
            (
                text("Hi {{a_name_of_17_char}}, how are you?"),
                body,
                "more than 16",
            ),
            (
                text("Hi {{my name}}, how are you?"),
                body,
                "does not begin a variable",
            ),
            (
                text("Hi {{1, how are you?"),
                body,
                "does not begin a variable",
            ),
            (text("Hi {{0}}, how are you?"), "types", "begin with {{0}}"),
        ] {
            let mut template = template;
            for name in ["0", "3", "a_name_of_17_char"] {
                if reason.contains("has no sample") && !reason.contains("missing") {
                    continue;
                }
                template["variables"][name] = json!("x");
            }
            let mut lines = found(&template, false);
            // A long name is one in `variables` too, and {{3}} without {{2}} is skipped.
            lines.retain(|line| !line.starts_with("variables.") && !line.contains("number {{2}}"));
            assert_eq!(lines.len(), 1, "{lines:#?}");
            assert!(lines[0].starts_with(&format!("{path}: ")), "{lines:?}");
            assert!(lines[0].contains(reason), "{lines:?}");
        }
        for (name, sample, reason) in [
            ("a b", json!("x"), "without blanks"),
            ("1", json!("v".repeat(1601)), "more than 1600"),
            ("1", json!(["x"]), "not a text"),
            ("1", json!("two\nlines"), "no line break"),
        ] {
            let mut template = text("Hello there");
            template["variables"][name] = sample;
            assert_wrong(&template, &format!("variables.{name}"), reason);
        }
        let many: serde_json::Map<_, _> = (0..101).map(|n| (n.to_string(), json!("x"))).collect();
        let mut template = text("Hello there");
        template["variables"] = many.into();
        assert_wrong(&template, "variables", "at most 100");
    }

    // A sample may be longer than its variable.
    #[test]
    fn lengths_are_those_with_the_samples() {
        let mut template = text(&format!("Hi {{{{1}}}}, {}", "b ".repeat(505)));
        assert_right(&template);
        template["variables"]["1"] = json!("A".repeat(20));
        assert_wrong(
            &template,
            "types.twilio/text.body",
            "characters with the samples",
        );
    }

    #[test]
    fn repeated_template_is_found() {
        let (one, mut other) = (text("a"), text("b"));
        let repeated = |other: &Value| repeated_templates(&[one.clone(), other.clone()]).len();
        assert_eq!(repeated(&other), 1);
        other["language"] = json!("de");
        assert_eq!(repeated(&other), 0);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z{}1 é]{0,12}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("types"),
            Just("variables"),
            Just("twilio/text"),
            Just("twilio/carousel"),
            Just("whatsapp/card"),
            Just("body"),
            Just("actions"),
            Just("cards"),
            Just("media"),
            Just("url"),
            Just("type"),
            Just("1"),
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_gets_findings_without_panic(value in any_json()) {
            let is_template = value["types"].is_object() && value["friendly_name"].is_string();
            prop_assert!(is_template || !lint_template(&value, false).is_empty());
        }

        // A body with text on both sides of each variable is right, and wrong without one of them.
        #[test]
        fn body_needs_words_around_each_variable(number in 1_usize..6, removed in 0_usize..6) {
            let words = |at: usize| if at == removed { "" } else { " some words here " };
            let mut body = words(0).to_owned();
            let mut samples = serde_json::Map::new();
            for at in 1..=number {
                body = format!("{body}{{{{{at}}}}}{}", words(at));
                samples.insert(at.to_string(), json!("x"));
            }
            let template = json!({"friendly_name": "a", "language": "en", "variables": samples,
                "types": {"twilio/text": {"body": body}}});
            let is_right = removed > number;
            prop_assert_eq!(lint_template(&template, false).is_empty(), is_right, "{}", body);
        }
    }
}
