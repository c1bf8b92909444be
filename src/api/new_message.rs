//! The message of a request, read from JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::json_body::{JsonBody, invalid_field};
use super::problem::ApiProblem;
use crate::address::Address;
use crate::twilio::NewMessage;

/// Fields of a request that make up the content of its message.
pub(super) const CONTENT_FIELDS: [&str; 7] = [
    "body",
    "media",
    "content",
    "location",
    "choices",
    "choices_key",
    "choices_button",
];

#[derive(Deserialize)]
struct PlaceField {
    latitude: f64,
    longitude: f64,
    label: Option<String>,
}

#[derive(Deserialize)]
struct TemplateField {
    sid: String,
    variables: Option<BTreeMap<String, Value>>,
}

/// Reads the content of a message.
///
/// # Errors
/// [`ApiProblem`] if the fields are empty, invalid, or more than one message.
pub(super) fn read_content(to: &Address, json: &mut JsonBody) -> Result<NewMessage, ApiProblem> {
    let body = json.take_text("body")?.filter(|body| !body.is_empty());
    let media = read_media(json)?;
    let template = json.take("content");
    let location = json.take("location");
    for name in ["choices", "choices_key", "choices_button"] {
        if json.take(name).is_some() {
            return Err(ApiProblem::rejected(
                "unsupported_content",
                format!("an outbound message cannot have {name}"),
                "send a template with buttons (content), or number the answers in body",
            ));
        }
    }
    let has_text = body.is_some() || !media.is_empty();
    match (template, location) {
        (None, None) if !has_text => Err(ApiProblem::rejected(
            "empty_message",
            "nothing to send",
            "add body, media, content or location",
        )),
        (None, None) => {
            let message = NewMessage::text(to.clone(), body.unwrap_or_default());
            Ok(media.into_iter().fold(message, NewMessage::media))
        }
        (Some(template), None) if !has_text => read_template(to, template),
        (None, Some(location)) if !has_text => read_location(to, location),
        _ => Err(ApiProblem::rejected(
            "several_messages",
            "a template and a location are messages of their own, without body and media",
            "send each with a request of its own",
        )),
    }
}

fn read_media(json: &mut JsonBody) -> Result<Vec<String>, ApiProblem> {
    let invalid = || invalid_field("media", "a list of URLs");
    match json.take("media") {
        None => Ok(Vec::new()),
        Some(Value::Array(urls)) => urls
            .into_iter()
            .map(|url| match url {
                Value::String(url) => Ok(url),
                _ => Err(invalid()),
            })
            .collect(),
        Some(_) => Err(invalid()),
    }
}

fn read_template(to: &Address, template: Value) -> Result<NewMessage, ApiProblem> {
    const EXPECTED: &str =
        "a template, such as {\"sid\": \"HX…\", \"variables\": {\"1\": \"Ana\"}}";
    let template: TemplateField =
        serde_json::from_value(template).map_err(|_| invalid_field("content", EXPECTED))?;
    let mut variables = BTreeMap::new();
    for (name, value) in template.variables.unwrap_or_default() {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => return Err(invalid_field("content.variables", "an object of texts")),
        };
        variables.insert(name, value);
    }
    Ok(NewMessage::template(to.clone(), template.sid, variables))
}

fn read_location(to: &Address, location: Value) -> Result<NewMessage, ApiProblem> {
    const EXPECTED: &str = "a place, such as {\"latitude\": 40.4, \"longitude\": -3.7}";
    let place: PlaceField =
        serde_json::from_value(location).map_err(|_| invalid_field("location", EXPECTED))?;
    let label = place.label.unwrap_or_default();
    Ok(NewMessage::location(
        to.clone(),
        place.latitude,
        place.longitude,
        &label,
    ))
}
