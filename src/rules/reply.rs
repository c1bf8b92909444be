//! Replies of rules and forms: messages whose texts and media URLs are templates.

use minijinja::value::Value;

use super::choices::{self, ChoiceTemplates};
use super::other_content::{self, OtherContent};
use super::reader::{Located, RulesReader};
use super::template::{RuleError, RulesTemplate, RulesTemplates, TemplateInput};
use crate::handler::HandlerError;
use crate::reply::{Media, Reply, ReplyMessage, is_web_url};

/// Maximum size of a rendered reply in bytes: more than ten messages of 1600 characters take.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// One message of a reply.
#[derive(Clone)]
pub(super) struct ReplyTemplate {
    text: Option<RulesTemplate>,
    media: Vec<(RulesTemplate, Option<String>)>,
    choices: Option<ChoiceTemplates>,
    /// A link button, or a template or a location, which is sent after the rest.
    other: Option<OtherContent>,
}

impl RulesTemplates {
    /// Renders the messages of a reply.
    ///
    /// # Errors
    /// [`HandlerError`] if a template fails, a media URL is invalid, or the reply is larger than 64 KiB.
    pub(super) fn reply(
        &self,
        templates: &[ReplyTemplate],
        input: &TemplateInput<'_>,
    ) -> Result<Reply, HandlerError> {
        // A reply without tags needs no variables: do not collect them.
        let is_plain = templates.iter().all(ReplyTemplate::is_plain);
        let variables = if is_plain {
            Value::UNDEFINED
        } else {
            self.variables(input)
        };
        let mut bytes = 0;
        let mut messages = Vec::with_capacity(templates.len());
        for reply in templates {
            let text = reply
                .text
                .as_ref()
                .map(|text| self.render(text, &variables));
            let text = text.transpose()?.unwrap_or_default();
            bytes += text.len();
            let mut message = ReplyMessage::text(text);
            for (template, content_type) in &reply.media {
                let url = self.render(template, &variables)?;
                // Checked for every message: a rendered URL may contain what the user wrote.
                if !is_web_url(&url) {
                    let line = template.line();
                    return Err(HandlerError::new(RuleError::MediaUrl { line }));
                }
                bytes += url.len();
                let media = Media::url(url);
                message = message.media(match content_type {
                    Some(content_type) => media.content_type(content_type),
                    None => media,
                });
            }
            // Fuel limits each rendering, and this their sum.
            if bytes > MAX_REPLY_BYTES {
                let line = reply.text.as_ref().map_or(0, RulesTemplate::line);
                return Err(HandlerError::new(RuleError::TooLarge { line }));
            }
            if let Some(choices) = &reply.choices {
                let added;
                (message, added) = choices.add_to(message, self, &variables)?;
                bytes += added;
            }
            let Some(other) = &reply.other else {
                messages.push(message);
                continue;
            };
            // A location or a template alone is one message.
            if !other.is_link() && !message.is_empty() {
                messages.push(std::mem::take(&mut message));
            }
            let (other, added) = other.render(message, self, &variables)?;
            bytes += added;
            messages.push(other);
        }
        Ok(messages.into_iter().collect())
    }
}

impl ReplyTemplate {
    /// Describes the message in the table of routes.
    pub(super) fn describe(&self) -> String {
        const MAX: usize = 50;
        let Some(text) = &self.text else {
            return "a file".to_owned();
        };
        let text = text.source();
        match text.char_indices().nth(MAX) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        }
    }

    fn is_plain(&self) -> bool {
        let mut media = self.media.iter().map(|(template, _)| template);
        let is_plain = |template: &RulesTemplate| matches!(template, RulesTemplate::Plain(_));
        self.text.as_ref().is_none_or(is_plain)
            && media.all(is_plain)
            && self.choices.as_ref().is_none_or(ChoiceTemplates::is_plain)
            && self.other.as_ref().is_none_or(OtherContent::is_plain)
    }

    /// Returns the choices of the message.
    pub(super) fn choices(&self) -> Option<&ChoiceTemplates> {
        self.choices.as_ref()
    }
}

/// Reads a reply: a text, a table, or a list of these.
pub(super) fn read(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    value: &toml::Spanned<toml::de::DeValue<'_>>,
    names: &[String],
) -> Vec<ReplyTemplate> {
    if let Some(array) = value.get_ref().as_array() {
        if array.len() > MAX_MESSAGES {
            let text = "over ten messages: Twilio accepts ten in one response";
            reader.add_problem(&value.span(), text);
        }
        let messages = array
            .iter()
            .filter_map(|value| read_message(reader, templates, value, names));
        return messages.collect();
    }
    read_message(reader, templates, value, names)
        .into_iter()
        .collect()
}

/// Maximum number of messages in one reply.
const MAX_MESSAGES: usize = 10;
/// Maximum number of media in one message.
const MAX_MEDIA: usize = 10;

fn read_message(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    value: &toml::Spanned<toml::de::DeValue<'_>>,
    names: &[String],
) -> Option<ReplyTemplate> {
    if let Some(text) = value.get_ref().as_str() {
        let text = Located {
            value: text.to_owned(),
            span: value.span(),
        };
        if text.value.trim().is_empty() {
            let message = "an empty text is not a message: write [] to send no reply";
            reader.add_problem(&text.span, message);
        }
        return Some(ReplyTemplate {
            text: Some(templates.add(reader, &text, names)?),
            media: Vec::new(),
            choices: None,
            other: None,
        });
    }
    if value.get_ref().as_table().is_none() {
        let text = "write a text in quotes, { text = \"…\", media = \"https://…\" }, or several of them in brackets";
        reader.add_problem(&value.span(), text);
        return None;
    }
    let mut fields = reader.table_of(value, "reply")?;
    let text = reader.text(&mut fields, "text");
    let text = text.map(|text| templates.add(reader, &text, names));
    let content_type = reader
        .text(&mut fields, "content_type")
        .map(|text| text.value);
    let urls = match fields.take("media") {
        Some(urls) => {
            let span = urls.span();
            let urls = reader.texts(urls, "media").unwrap_or_default();
            urls.into_iter()
                .map(|value| Located {
                    value,
                    span: span.clone(),
                })
                .collect()
        }
        None => Vec::new(),
    };
    let mut media = Vec::new();
    if urls.len() > MAX_MEDIA {
        let text = "over ten files: Twilio accepts ten in one message";
        reader.add_problem(&fields.span.clone(), text);
    }
    for url in urls {
        // A URL with tags is only known when it is rendered.
        let is_plain = !url.value.contains("{{") && !url.value.contains("{%");
        if is_plain && !is_web_url(&url.value) {
            reader.add_problem(
                &url.span,
                "media is not an http or https URL, as in \"https://example.com/menu.png\"",
            );
        }
        let template = templates.add(reader, &url, names)?;
        media.push((template, content_type.clone()));
    }
    let choices = choices::read(reader, templates, &mut fields, names);
    let other = other_content::read(reader, templates, &mut fields, names);
    if other.as_ref().is_some_and(OtherContent::is_link) {
        if choices.is_some() {
            let text =
                "a message has choices or a link: write two messages in brackets to send both";
            reader.add_problem(&fields.span.clone(), text);
        } else if text.is_none() {
            reader.add_problem(
                &fields.span.clone(),
                "a link needs a text above it: write text",
            );
        }
    }
    let has_only_known_keys = reader.report_unknown_keys(&fields);
    let has_content = ["text", "media", "content", "location"];
    if has_only_known_keys && !has_content.iter().any(|key| fields.has(key)) {
        let text = if choices.is_some() {
            "choices need a question: write text"
        } else {
            "this message is empty: write text, media, content or location"
        };
        reader.add_problem(&fields.span.clone(), text);
    }
    Some(ReplyTemplate {
        text: text.flatten(),
        media,
        choices,
        other,
    })
}
