//! Comparison of a declared template with the one that Twilio has.

use serde_json::{Map, Value};

/// Fields that Twilio adds with these values, if a template leaves them out.
const DEFAULTS: [(&str, &str); 3] = [
    ("type", "\"QUICK_REPLY\""),
    ("webview_size", "\"NONE\""),
    ("ttl_minutes", "10080"),
];

/// Returns whether a declared template has the content of the one with these types and samples at Twilio.
///
/// Twilio's response may have further fields that are empty or have their default.
pub fn is_same_content(declared: &Value, types: &Value, variables: &Value) -> bool {
    let none = Value::Object(Map::new());
    let part = |name: &str| declared.get(name).filter(|value| !value.is_null());
    is_same(part("types").unwrap_or(&none), types)
        && is_same(part("variables").unwrap_or(&none), variables)
}

fn is_same(declared: &Value, stored: &Value) -> bool {
    match (declared, stored) {
        (Value::Object(declared), Value::Object(stored)) => {
            let has_all = declared.iter().all(|(name, value)| match stored.get(name) {
                Some(stored) => is_same(value, stored),
                None => is_empty(value),
            });
            let added = stored
                .iter()
                .filter(|(name, _)| !declared.contains_key(*name));
            has_all
                && added
                    .into_iter()
                    .all(|(name, value)| is_default(name, value))
        }
        (Value::Array(declared), Value::Array(stored)) => {
            let mut pairs = declared.iter().zip(stored);
            declared.len() == stored.len() && pairs.all(|(one, other)| is_same(one, other))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        // Samples: Twilio may return a number as a text.
        (Value::Number(number), Value::String(text))
        | (Value::String(text), Value::Number(number)) => number.to_string() == *text,
        (declared, stored) => declared == stored || is_empty(declared) && is_empty(stored),
    }
}

fn is_default(name: &str, value: &Value) -> bool {
    let text = value.to_string();
    is_empty(value) || DEFAULTS.contains(&(name, text.as_str()))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_compared_without_what_twilio_adds() {
        let declared = json!({"friendly_name": "a", "variables": {"1": 7}, "types": {"twilio/quick-reply": {
            "body": "Hi", "actions": [{"title": "Yes", "id": "y"}],
        }}});
        let with = |change: &dyn Fn(&mut Value)| {
            let mut types = declared["types"].clone();
            change(&mut types["twilio/quick-reply"]);
            is_same_content(&declared, &types, &json!({"1": "7"}))
        };
        assert!(with(&|_| ()));
        assert!(with(
            &|quick| quick["actions"][0]["type"] = json!("QUICK_REPLY")
        ));
        assert!(with(&|quick| quick["footer"] = Value::Null));
        assert!(!with(&|quick| quick["footer"] = json!("more")));
        assert!(!with(&|quick| quick["body"] = json!("Ho")));
        assert!(!with(&|quick| quick["actions"] = json!([])));
        assert!(!with(&|quick| quick["actions"][0]["id"] = json!("n")));
        for variables in [json!({}), json!({"1": "8"}), json!({"1": "7", "2": "x"})] {
            assert!(!is_same_content(&declared, &declared["types"], &variables));
        }
        let place = |latitude: Value| json!({"types": {"twilio/location": {"latitude": latitude}}});
        let stored = place(json!(52.0));
        assert!(is_same_content(
            &place(json!(52)),
            &stored["types"],
            &Value::Null
        ));
    }
}
