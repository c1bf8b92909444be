//! The result of a WhatsApp Flow, as the template variable `flow`.
//!
//! A field is a text, a number or a boolean. A field of several choices becomes one text of all of them: templates must
//! not get a list, which they could multiply (see [`super::language`]). Other values, and missing fields, are empty
//! texts.

use std::collections::BTreeMap;

use minijinja::value::Value;
use serde_json::Value as Json;

use crate::message::InboundMessage;

/// Returns the fields of a message's Flow by name. Without a Flow the value is empty, and false in a condition.
pub(super) fn value(message: &InboundMessage) -> Value {
    let fields = message.flow_fields().unwrap_or_default();
    let fields = fields.into_iter().map(|(name, field)| {
        let value = match field {
            Json::Array(choices) => {
                let choices = choices.iter().map(|choice| scalar(choice).to_string());
                Value::from(choices.collect::<Vec<_>>().join(", "))
            }
            field => scalar(&field),
        };
        (name, value)
    });
    let fields: BTreeMap<String, Value> = fields.collect();
    // An object, and not a plain map: in a plain map a missing field is undefined, which fails the rendering.
    Value::make_object_map(
        fields,
        |fields| Box::new(fields.keys().map(|name| Value::from(name.as_str()))),
        |fields, name| {
            let field = name.as_str().and_then(|name| fields.get(name));
            Some(field.cloned().unwrap_or_else(|| Value::from("")))
        },
    )
}

fn scalar(value: &Json) -> Value {
    match value {
        Json::String(text) => Value::from(text.as_str()),
        Json::Bool(flag) => Value::from(*flag),
        // Whole numbers stay whole: `2` must not be printed as `2.0`.
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => Value::from(""),
    }
}
