//! `choices`, `content` and `location` of a service's response.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::ForwardError;
use crate::choice::{Choice, Choices};
use crate::reply::ReplyMessage;

/// Template in a response.
#[derive(Deserialize)]
pub(super) struct ServiceContent {
    sid: Option<String>,
    name: Option<String>,
    language: Option<String>,
    #[serde(default)]
    variables: Option<BTreeMap<String, Value>>,
}

/// Location in a response.
#[derive(Deserialize)]
pub(super) struct ServiceLocation {
    latitude: f64,
    longitude: f64,
    #[serde(default)]
    label: Option<String>,
}

/// One choice of a response: its title, or an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum ServiceChoice {
    Title(String),
    Object {
        id: Option<String>,
        title: String,
        description: Option<String>,
    },
}

impl From<ServiceChoice> for Choice {
    fn from(choice: ServiceChoice) -> Self {
        match choice {
            ServiceChoice::Title(title) => Self::from(title),
            ServiceChoice::Object {
                id,
                title,
                description,
            } => {
                let id = id.unwrap_or_else(|| title.clone());
                let choice = Self::new(id, title);
                match description {
                    Some(description) => choice.description(description),
                    None => choice,
                }
            }
        }
    }
}

/// Adds choices to a message. If they are invalid, the user gets the question and the titles as a text, and the reason is
/// returned.
pub(super) fn add_choices(
    message: ReplyMessage,
    choices: &Value,
) -> (ReplyMessage, Option<String>) {
    let reason = match serde_json::from_value::<Vec<ServiceChoice>>(choices.clone()) {
        Ok(read) => match Choices::new(read) {
            Ok(choices) => return (message.choices(choices), None),
            Err(error) => error.to_string(),
        },
        // Not serde's own text, which may quote a title.
        Err(_) => "choices is not a list of titles and of objects with a title".to_owned(),
    };
    (with_titles(message, choices), Some(reason))
}

/// Appends the titles that can be read, one a line.
fn with_titles(mut message: ReplyMessage, choices: &Value) -> ReplyMessage {
    let titles = choices
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|choice| {
            let title = choice.as_str().or_else(|| choice.get("title")?.as_str())?;
            Some(title.trim()).filter(|title| !title.is_empty())
        });
    let mut lines = vec![message.body().trim_end()];
    for title in titles.take(Choices::MAX) {
        if !lines.contains(&title) {
            lines.push(title);
        }
    }
    let text = lines.join("\n");
    message.set_text(text.trim_start_matches('\n'));
    message
}

impl ServiceContent {
    /// Returns the message of a template.
    ///
    /// # Errors
    /// [`ForwardError::Content`] if the SID or a value of a variable is invalid.
    pub(super) fn into_message(self) -> Result<ReplyMessage, ForwardError> {
        let mut message = match (self.sid, self.name, self.language) {
            (Some(sid), None, None) => ReplyMessage::content(sid),
            (None, Some(name), Some(language)) => ReplyMessage::template(name, language),
            _ => return Err(ForwardError::Content),
        };
        for (name, value) in self.variables.unwrap_or_default() {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                _ => return Err(ForwardError::Content),
            };
            message = message.variable(name, value);
        }
        checked(message)
    }
}

impl ServiceLocation {
    /// Returns the message of a location.
    ///
    /// # Errors
    /// [`ForwardError::Content`] if it is not on the globe.
    pub(super) fn into_message(self) -> Result<ReplyMessage, ForwardError> {
        let label = self.label.unwrap_or_default();
        checked(ReplyMessage::location(self.latitude, self.longitude, label))
    }
}

fn checked(message: ReplyMessage) -> Result<ReplyMessage, ForwardError> {
    match crate::reply::Reply::from(message.clone()).check() {
        Ok(()) => Ok(message),
        Err(_) => Err(ForwardError::Content),
    }
}
