//! [`DeclaredTemplate`]: a template of a file.

use serde_json::{Map, Value};

use super::finding::TemplateFinding;

/// Keys of the Content API.
const CONTENT_KEYS: [&str; 4] = ["friendly_name", "language", "variables", "types"];
/// Keys for the submission to WhatsApp.
const SUBMISSION_KEYS: [&str; 2] = ["name", "category"];

/// A template of a file, with the request that creates it.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct DeclaredTemplate {
    /// `friendly_name` at Twilio.
    pub friendly_name: String,
    /// Language, such as `en` or `pt_BR`.
    pub language: String,
    /// Body of `POST /v1/Content`.
    pub content: Value,
    /// Name at WhatsApp: `name`, else `friendly_name`.
    pub whatsapp_name: String,
    /// Category at WhatsApp.
    pub category: Option<String>,
}

impl DeclaredTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// The first key without which the template cannot be found at Twilio again.
    pub fn read(template: &Value) -> Result<Self, TemplateFinding> {
        let text = |name: &str| {
            let text = template.get(name).and_then(Value::as_str);
            text.filter(|text| !text.trim().is_empty())
                .map(str::to_owned)
        };
        let required = |name: &str| {
            text(name).ok_or_else(|| TemplateFinding::new(name, "it is missing", "add it"))
        };
        let friendly_name = required("friendly_name")?;
        let mut content = Map::new();
        for key in CONTENT_KEYS {
            if let Some(value) = template.get(key) {
                content.insert(key.to_owned(), value.clone());
            }
        }
        Ok(Self {
            language: required("language")?,
            whatsapp_name: text("name").unwrap_or_else(|| friendly_name.clone()),
            category: text("category"),
            content: Value::Object(content),
            friendly_name,
        })
    }
}

/// Returns all keys that a template may have.
pub(super) fn known_keys() -> impl Iterator<Item = &'static str> {
    CONTENT_KEYS.into_iter().chain(SUBMISSION_KEYS)
}

/// Returns the templates of a file: one object, a list of objects, or the list `templates`.
///
/// # Errors
/// An explanation of the shapes.
pub fn templates_of(file: Value) -> Result<Vec<Value>, String> {
    let templates = match file {
        Value::Array(templates) => templates,
        Value::Object(mut fields) => match fields.remove("templates") {
            Some(Value::Array(templates)) if fields.is_empty() => templates,
            None => vec![Value::Object(fields)],
            Some(_) => {
                return Err("`templates` is not a list, or other keys are next to it".to_owned());
            }
        },
        _ => vec![file],
    };
    if templates.is_empty() {
        return Err("it has no template".to_owned());
    }
    if templates.iter().all(Value::is_object) {
        Ok(templates)
    } else {
        Err("expected a template, a list of templates, or the list `templates`".to_owned())
    }
}
