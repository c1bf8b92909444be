//! `reply.content` and `reply.location`: templates, link buttons and locations.

use minijinja::value::Value;

use super::reader::{Fields, Located, RulesReader};
use super::template::{RulesTemplate, RulesTemplates};
use crate::handler::HandlerError;
use crate::reply::{Reply, ReplyMessage, is_web_url};

/// A template at Twilio, a location or a link button. Its texts are templates of the rules file.
#[derive(Clone)]
pub(super) enum OtherContent {
    /// The message without variables, and the variables by name.
    Content(ReplyMessage, Vec<(String, RulesTemplate)>),
    Location {
        latitude: f64,
        longitude: f64,
        label: Option<RulesTemplate>,
    },
    /// A button that opens a URL, below the text of its message.
    Link {
        title: RulesTemplate,
        url: RulesTemplate,
    },
}

/// Reads `content` and `location`, of which a reply has at most one.
pub(super) fn read(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    fields: &mut Fields<'_>,
    names: &[String],
) -> Option<OtherContent> {
    let span = fields.span.clone();
    if fields.has("content") && fields.has("location") {
        let text = "a message has content or location: write two messages in brackets to send both";
        reader.add_problem(&span, text);
    }
    let problems = reader.problem_count();
    let content = reader.table(fields, "content");
    let content = content.and_then(|content| read_content(reader, templates, content, names));
    let location = reader.table(fields, "location");
    let location = location.map(|location| read_location(reader, templates, location, names));
    let other = content.or(location)?;
    // Not after a problem in its keys, which would be reported twice.
    if problems == reader.problem_count()
        && let Err(error) = Reply::from(other.without_variables()).check()
    {
        reader.add_problem(&span, error.to_string());
    }
    Some(other)
}

fn read_content(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut content: Fields<'_>,
    names: &[String],
) -> Option<OtherContent> {
    let span = content.span.clone();
    if let Some(link) = reader.table(&mut content, "link") {
        if ["sid", "name", "language", "variables"]
            .iter()
            .any(|key| content.has(key))
        {
            let text = "content names a template or has a link: write two messages in brackets to send both";
            reader.add_problem(&span, text);
            return None;
        }
        if reader.report_unknown_keys(&content) {
            return read_link(reader, templates, link, names);
        }
        return None;
    }
    let mut text = |key| reader.text(&mut content, key).map(|text| text.value);
    let (sid, name, language) = (text("sid"), text("name"), text("language"));
    let mut values = Vec::new();
    if let Some(variables) = reader.table(&mut content, "variables") {
        for (name, value) in variables.entries() {
            let Some(text) = value.get_ref().as_str() else {
                reader.add_problem(&value.span(), "a variable is a text in quotes");
                continue;
            };
            let text = Located {
                value: text.to_owned(),
                span: value.span(),
            };
            values.extend(
                templates
                    .add(reader, &text, names)
                    .map(|text| (name.value, text)),
            );
        }
    }
    let has_only_known_keys = reader.report_unknown_keys(&content);
    let problem = match (sid, name, language) {
        (Some(sid), None, None) => {
            return Some(OtherContent::Content(ReplyMessage::content(sid), values));
        }
        (None, Some(name), Some(language)) => {
            let message = ReplyMessage::template(name, language);
            return Some(OtherContent::Content(message, values));
        }
        (Some(_), _, _) => "content names one template: by sid, or by name and language",
        (None, Some(_), None) => {
            "content lacks the language of the template, as in language = \"en\""
        }
        (None, None, Some(_)) => "content lacks the name of the template",
        (None, None, None) => {
            "content names a template or has a link: write sid, or name and language, or link = { title = \"…\", url = \"https://…\" }"
        }
    };
    // A misspelt key was reported, and so was a value of a wrong type.
    let is_reported = !has_only_known_keys
        || ["sid", "name", "language"]
            .iter()
            .any(|key| content.has(key) && content.peek(key).is_none());
    if !is_reported {
        reader.add_problem(&span, problem);
    }
    None
}

fn read_link(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut link: Fields<'_>,
    names: &[String],
) -> Option<OtherContent> {
    let span = link.span.clone();
    let (title, url) = (
        reader.text(&mut link, "title"),
        reader.text(&mut link, "url"),
    );
    let has_only_known_keys = reader.report_unknown_keys(&link);
    if has_only_known_keys && !(link.has("title") && link.has("url")) {
        reader.add_problem(
            &span,
            "a link has a title and a url, as in { title = \"Track it\", url = \"https://example.com/42\" }",
        );
    }
    let (title, url) = (title?, url?);
    if title.value.trim().is_empty() {
        reader.add_problem(&title.span, "the title of the link is empty");
    }
    // A URL with tags is only known when it is rendered.
    let is_plain = !url.value.contains("{{") && !url.value.contains("{%");
    if is_plain && !is_web_url(&url.value) {
        let text = "the link's url is not an http or https URL, as in \"https://example.com/42\"";
        reader.add_problem(&url.span, text);
    }
    Some(OtherContent::Link {
        title: templates.add(reader, &title, names)?,
        url: templates.add(reader, &url, names)?,
    })
}

fn read_location(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut location: Fields<'_>,
    names: &[String],
) -> OtherContent {
    let latitude = reader.number(&mut location, "latitude");
    let longitude = reader.number(&mut location, "longitude");
    let label = reader.text(&mut location, "label");
    let label = label.and_then(|label| templates.add(reader, &label, names));
    reader.report_unknown_keys(&location);
    OtherContent::Location {
        latitude: latitude.unwrap_or(f64::NAN),
        longitude: longitude.unwrap_or(f64::NAN),
        label,
    }
}

impl OtherContent {
    /// Returns whether no text has tags.
    pub(super) fn is_plain(&self) -> bool {
        let is_plain = |template: &RulesTemplate| matches!(template, RulesTemplate::Plain(_));
        match self {
            Self::Content(_, variables) => variables.iter().all(|(_, value)| is_plain(value)),
            Self::Location { label, .. } => label.as_ref().is_none_or(is_plain),
            Self::Link { title, url } => is_plain(title) && is_plain(url),
        }
    }

    fn without_variables(&self) -> ReplyMessage {
        match self {
            Self::Content(message, _) => message.clone(),
            Self::Location {
                latitude,
                longitude,
                ..
            } => ReplyMessage::location(*latitude, *longitude, ""),
            // Its URL was checked where it was read.
            Self::Link { .. } => ReplyMessage::default(),
        }
    }

    /// Returns whether it belongs to the text of its message.
    pub(super) fn is_link(&self) -> bool {
        matches!(self, Self::Link { .. })
    }

    /// Adds a link to the message with its text. Any other content is a message of its own, in place of `message`. Returns
    /// the size of its texts in bytes as well.
    ///
    /// # Errors
    /// [`HandlerError`] if a template fails.
    pub(super) fn render(
        &self,
        message: ReplyMessage,
        templates: &RulesTemplates,
        variables: &Value,
    ) -> Result<(ReplyMessage, usize), HandlerError> {
        match self {
            Self::Link { title, url } => {
                let line = url.line();
                let title = templates.render(title, variables)?;
                let url = templates.render(url, variables)?;
                // Checked for every message: a rendered URL may contain what the user wrote.
                if !is_web_url(&url) {
                    tracing::warn!(
                        line,
                        "the URL of a rule's link is not an http or https URL; the text is sent without the link"
                    );
                    return Ok((message, 0));
                }
                let bytes = title.len() + url.len();
                Ok((message.link(title, url), bytes))
            }
            Self::Content(message, values) => {
                let (mut message, mut bytes) = (message.clone(), 0);
                for (name, value) in values {
                    let value = templates.render(value, variables)?;
                    bytes += value.len();
                    message = message.variable(name.as_str(), value);
                }
                Ok((message, bytes))
            }
            Self::Location {
                latitude,
                longitude,
                label,
            } => {
                let label = label
                    .as_ref()
                    .map(|label| templates.render(label, variables));
                let label = label.transpose()?.unwrap_or_default();
                let bytes = label.len();
                Ok((ReplyMessage::location(*latitude, *longitude, label), bytes))
            }
        }
    }
}
