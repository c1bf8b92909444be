//! What a WhatsApp Flow gave, as templates see it.
//!
//! A field is a text, a number, or true or false, and one of several choices a text of them all: so there is no list here that a
//! template could keep or multiply. What is none of these, or is not there, is empty.

use std::collections::BTreeMap;

use minijinja::value::Value;
use serde_json::Value as Json;

use crate::message::{InboundMessage, JsonText};

/// What a message has of a Flow, by the fields' names. Without any it is false.
pub(super) fn value(message: &InboundMessage) -> Value {
    let data = message.flow_data.as_ref().and_then(JsonText::value);
    let fields = match data {
        Some(Json::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
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
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => Value::from(""),
    }
}
