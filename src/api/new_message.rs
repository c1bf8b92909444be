//! The message of a request, read from JSON.

use serde_json::Map;

use super::json_body::{JsonBody, invalid_field};
use super::problem::ApiProblem;
use super::state::Api;
use crate::address::Address;
use crate::forward::{MESSAGE_KEYS, read_message};
use crate::reply::Reply;
use crate::twilio::NewMessage;

/// Reads the content of a message, with the reader of a forward service's response. An invalid part is an error
/// here: the client can correct it, while a user waits for a service's.
///
/// # Errors
/// [`ApiProblem`] if the fields are empty or invalid.
pub(super) fn read_content(
    api: &Api,
    to: &Address,
    json: &mut JsonBody,
) -> Result<NewMessage, ApiProblem> {
    let mut fields = Map::new();
    for name in MESSAGE_KEYS {
        if let Some(value) = json.take(name) {
            fields.insert(name.to_owned(), value);
        }
    }
    if !fields.contains_key("choices") {
        for name in ["choices_key", "choices_button", "choices_hint"] {
            if fields.contains_key(name) {
                return Err(invalid_field(name, "part of a question, next to choices"));
            }
        }
    }
    let invalid = |name| invalid_field(name, expected(name));
    let read = read_message(fields).map_err(invalid)?;
    if let Some(reason) = read.invalid_choices {
        return Err(ApiProblem::rejected(
            "invalid_field",
            format!("the field choices is invalid: {reason}"),
            "choices is a list of titles, or of objects with id, title and description",
        ));
    }
    if let Some(name) = read.left_out.first() {
        return Err(invalid(name));
    }
    api.log_unknown_fields(read.unknown_keys);
    if read.messages.is_empty() {
        return Err(ApiProblem::rejected(
            "empty_message",
            "nothing to send",
            "add body, media, choices, content or location",
        ));
    }
    let reply: Reply = read.messages.into_iter().collect();
    Ok(NewMessage::reply(to.clone(), reply))
}

/// Returns what a field has to be.
fn expected(name: &str) -> &'static str {
    match name {
        "media" => "a list of http or https URLs",
        "choices_button" => "a text of at most 20 characters",
        "content" => {
            "a template, such as {\"sid\": \"HX…\", \"variables\": {\"1\": \"Ana\"}} or {\"name\": \"receipt\", \
             \"language\": \"es\"}, or a button, such as {\"link\": {\"title\": \"Track it\", \"url\": \"https://…\"}}"
        }
        "location" => "a place, such as {\"latitude\": 40.4, \"longitude\": -3.7}",
        _ => "a text",
    }
}
