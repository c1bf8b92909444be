//! Fields of a WhatsApp Flow's result.
//!
//! Twilio sends them as `FlowData`, in the form of the channel, and its own reading as `InteractiveData`. Neither has a
//! documented schema, so all forms that are known are read.

use serde_json::{Map, Value};

use super::parts::JsonText;

/// Returns the fields of the first parameter that has them.
pub(super) fn fields(
    flow_data: Option<&JsonText>,
    interactive_data: Option<&JsonText>,
) -> Option<Map<String, Value>> {
    let object = |text: &JsonText| match text.value() {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    if let Some(fields) = flow_data.and_then(object) {
        return Some(inner(&fields, "response_json").unwrap_or(fields));
    }
    let fields = interactive_data.and_then(object)?;
    // Other interactive messages have `InteractiveData` too. With `FlowData` it can only be a Flow's.
    inner(&fields, "flowResponse").or_else(|| flow_data.map(|_| fields))
}

/// Returns the object under a key, which may be a text of JSON.
fn inner(fields: &Map<String, Value>, key: &str) -> Option<Map<String, Value>> {
    match fields.get(key)? {
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Object(fields) => Some(fields.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flow_fields_are_read_from_every_known_form() {
        let ana = json!({"name": "Ana"});
        for (flow_data, interactive_data, expected) in [
            (Some(r#"{"name":"Ana"}"#), None, Some(&ana)),
            (
                Some(r#"{"response_json":"{\"name\":\"Ana\"}","name":"flow"}"#),
                None,
                Some(&ana),
            ),
            (Some("sent"), Some(r#"{"name":"Ana"}"#), Some(&ana)),
            (None, Some(r#"{"flowResponse":{"name":"Ana"}}"#), Some(&ana)),
            (None, Some(r#"{"name":"Ana"}"#), None),
            (Some("[1]"), None, None),
            (None, None, None),
        ] {
            let text = |text: Option<&str>| text.map(JsonText::new);
            let found = fields(text(flow_data).as_ref(), text(interactive_data).as_ref());
            let found = found.map(Value::Object);
            assert_eq!(
                found.as_ref(),
                expected,
                "{flow_data:?} {interactive_data:?}"
            );
        }
    }
}
