//! Variables of a template: the values of a message, and the placeholders `{{name}}` that they replace.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use replyhook_core::template::limits::{MAX_VARIABLE_NAME, MAX_VARIABLE_VALUE, MAX_VARIABLES};

/// Parses `ContentVariables`: a JSON object of strings. Returns `None` if it is not one.
pub(crate) fn parse_values(text: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(text).ok()
}

/// Returns an explanation if the samples of a template are invalid.
pub(crate) fn samples_problem(samples: &Map<String, Value>) -> Option<String> {
    if samples.len() > MAX_VARIABLES {
        return Some(format!("variables: at most {MAX_VARIABLES}"));
    }
    samples.iter().find_map(|(name, value)| {
        let is_valid_name = !name.is_empty()
            && name.chars().count() <= MAX_VARIABLE_NAME
            && !name.contains(char::is_whitespace);
        if !is_valid_name {
            return Some(format!(
                "variables: invalid name {name:?}; expected 1 to {MAX_VARIABLE_NAME} characters without blanks"
            ));
        }
        let is_valid_value = match value {
            Value::String(text) => text.chars().count() <= MAX_VARIABLE_VALUE,
            Value::Number(_) => true,
            _ => false,
        };
        (!is_valid_value).then(|| {
            format!("variables.{name}: expected a text of at most {MAX_VARIABLE_VALUE} characters")
        })
    })
}

/// Values for the placeholders of one message: its own, and the template's samples for the others.
pub(crate) struct ContentValues {
    values: BTreeMap<String, String>,
    /// Placeholders that have no value.
    pub(crate) missing: BTreeSet<String>,
}

impl ContentValues {
    pub(crate) fn new(given: &BTreeMap<String, String>, samples: &Map<String, Value>) -> Self {
        let samples = samples.iter().map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name.clone(), text.unwrap_or_else(|| value.to_string()))
        });
        let given = given
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        Self {
            // Later entries win.
            values: samples.chain(given).collect(),
            missing: BTreeSet::new(),
        }
    }

    /// Replaces the placeholders in all texts of a value.
    pub(crate) fn fill(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill_text(text)),
            Value::Array(values) => values.iter().map(|value| self.fill(value)).collect(),
            Value::Object(fields) => {
                let filled = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), self.fill(value)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }

    fn fill_text(&mut self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        // One pass over the template: a placeholder inside a value is not replaced.
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            filled.push_str(before);
            let placeholder = after
                .split_once("}}")
                .map(|(name, rest)| (name.trim(), rest));
            let placeholder =
                placeholder.filter(|(name, _)| !name.is_empty() && !name.contains(['{', '}', ' ']));
            let value = placeholder.and_then(|(name, _)| self.values.get(name));
            if let (Some((_, after)), Some(value)) = (placeholder, value) {
                filled.push_str(value);
                rest = after;
            } else {
                self.missing
                    .extend(placeholder.map(|(name, _)| name.to_owned()));
                // Unknown or not a placeholder: keep it as text.
                filled.push_str("{{");
                rest = after;
            }
        }
        filled + rest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_get_values_then_samples() {
        let samples = json!({"1": "Jane", "2": 7, "3": "late"});
        let given = parse_values(r#"{"1":"Ana","9":"unused"}"#).unwrap();
        let mut values = ContentValues::new(&given, samples.as_object().unwrap());
        let filled = values.fill(&json!({
            "body": "{{1}}, {{ 2 }}, {{x}} {{a b}} {{", "actions": [{"title": "{{3}}", "ttl": 5}],
        }));
        let expected = json!({
            "body": "Ana, 7, {{x}} {{a b}} {{", "actions": [{"title": "late", "ttl": 5}],
        });
        assert_eq!(filled, expected);
        assert_eq!(values.missing, BTreeSet::from(["x".to_owned()]));
    }

    #[test]
    fn value_with_placeholder_is_not_filled_again() {
        let given = parse_values(r#"{"1":"{{2}}","2":"no"}"#).unwrap();
        let mut values = ContentValues::new(&given, &Map::new());
        assert_eq!(values.fill(&json!("{{1}}")), json!("{{2}}"));
    }

    #[test]
    fn content_variables_other_than_texts_are_invalid() {
        for text in ["", "{", "null", "[]", r#"{"1":null}"#, r#"{"1":2}"#, "{{}}"] {
            assert!(parse_values(text).is_none(), "{text}");
        }
        assert!(parse_values("{}").is_some());
    }

    #[test]
    fn invalid_samples_are_explained() {
        for samples in [
            json!({"a b": "x"}),
            json!({"": "x"}),
            json!({"12345678901234567": "x"}),
            json!({"1": null}),
            json!({"1": "x".repeat(1601)}),
        ] {
            assert!(samples_problem(samples.as_object().unwrap()).is_some());
        }
        assert!(samples_problem(json!({"1": "Ana", "2": 7}).as_object().unwrap()).is_none());
    }
}
