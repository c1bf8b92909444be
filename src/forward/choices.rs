//! `choices`, `content` and `location` of a service's response.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::error::ForwardError;
use crate::choice::{Choice, Choices};
use crate::reply::ReplyMessage;

/// `content` of a response, read.
pub(super) enum ServiceContent {
    /// A message of its own.
    Template(ReplyMessage),
    /// A button below the text of its message.
    Link(ServiceLink),
}

/// Link button in a response.
#[derive(Deserialize)]
pub(super) struct ServiceLink {
    title: String,
    url: String,
}

/// Template or link button in a response.
#[derive(Deserialize)]
struct ContentFields {
    link: Option<ServiceLink>,
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

/// Choices of a response, read.
pub(super) struct ServiceChoices {
    /// The question with its choices, or with their titles as a text if they are invalid.
    pub(super) message: ReplyMessage,
    /// Reason why the choices are invalid.
    pub(super) reason: Option<String>,
    /// Unknown keys of choices.
    pub(super) unknown_keys: BTreeSet<String>,
}

/// Adds choices to a message. If they are invalid, the user gets the question and the titles as a text.
pub(super) fn add_choices(message: ReplyMessage, choices: &Value) -> ServiceChoices {
    let mut unknown_keys = BTreeSet::new();
    let read = choices.as_array().map(|choices| {
        let read = |choice| read_choice(choice, &mut unknown_keys);
        // Not `collect` into an `Option`, which stops at the first invalid choice: the log needs the keys of all.
        let read: Vec<_> = choices.iter().map(read).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let reason = match read.flatten().map(Choices::new) {
        Some(Ok(choices)) => {
            return ServiceChoices {
                message: message.choices(choices),
                reason: None,
                unknown_keys,
            };
        }
        Some(Err(error)) => error.to_string(),
        None => "choices is not a list of titles and of objects with a title".to_owned(),
    };
    ServiceChoices {
        message: with_titles(message, choices),
        reason: Some(reason),
        unknown_keys,
    }
}

/// Reads a choice: its title, or an object. `None` for one of another shape.
fn read_choice(choice: &Value, unknown_keys: &mut BTreeSet<String>) -> Option<Choice> {
    if let Value::String(title) = choice {
        return Some(Choice::from(title.as_str()));
    }
    let fields = choice.as_object()?;
    let is_unknown = |key: &&String| !["id", "title", "description"].contains(&key.as_str());
    unknown_keys.extend(fields.keys().filter(is_unknown).cloned());
    let text = |key| match fields.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text.as_str())),
        Some(_) => None,
    };
    let title = text("title")??;
    let choice = Choice::new(text("id")?.unwrap_or(title), title);
    Some(match text("description")? {
        Some(description) => choice.description(description),
        None => choice,
    })
}

/// Appends all titles that can be read, one a line.
fn with_titles(mut message: ReplyMessage, choices: &Value) -> ReplyMessage {
    let items: Vec<&Value> = match choices {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) if !fields.contains_key("title") => fields.values().collect(),
        other => vec![other],
    };
    let title = |choice: &Value| match choice.get("title").unwrap_or(choice) {
        Value::String(title) => Some(title.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let mut text = message.body().trim_end().to_owned();
    let mut seen = BTreeSet::new();
    for title in items.into_iter().filter_map(title) {
        if !title.is_empty() && seen.insert(title.clone()) {
            text.push('\n');
            text.push_str(&title);
        }
    }
    message.set_text(text.trim_start_matches('\n'));
    message
}

impl ServiceContent {
    /// Reads a template or a link button.
    ///
    /// # Errors
    /// [`ForwardError::Content`] if it is of another shape, or the SID, a value of a variable or the URL is invalid.
    pub(super) fn read(content: Value) -> Result<Self, ForwardError> {
        let content: ContentFields =
            serde_json::from_value(content).map_err(|_| ForwardError::Content)?;
        match content {
            ContentFields {
                link: Some(link),
                sid: None,
                name: None,
                ..
            } => {
                checked(link.add_to(ReplyMessage::default()))?;
                Ok(Self::Link(link))
            }
            ContentFields { link: Some(_), .. } => Err(ForwardError::Content),
            content => content.into_message().map(Self::Template),
        }
    }
}

impl ServiceLink {
    pub(super) fn add_to(&self, message: ReplyMessage) -> ReplyMessage {
        message.link(self.title.as_str(), self.url.as_str())
    }
}

impl ContentFields {
    fn into_message(self) -> Result<ReplyMessage, ForwardError> {
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
    /// Reads the message of a location.
    ///
    /// # Errors
    /// [`ForwardError::Content`] if it is of another shape, or not on the globe.
    pub(super) fn read(location: Value) -> Result<ReplyMessage, ForwardError> {
        let location: Self = serde_json::from_value(location).map_err(|_| ForwardError::Content)?;
        let label = location.label.unwrap_or_default();
        checked(ReplyMessage::location(
            location.latitude,
            location.longitude,
            label,
        ))
    }
}

fn checked(message: ReplyMessage) -> Result<ReplyMessage, ForwardError> {
    match crate::reply::Reply::from(message.clone()).check() {
        Ok(()) => Ok(message),
        Err(_) => Err(ForwardError::Content),
    }
}
