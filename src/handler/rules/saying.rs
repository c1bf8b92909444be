//! What a rule says: texts and files, each a template.

use minijinja::value::Value;

use super::reader::{At, Reader};
use super::template::{RuleError, Said, Template, Templates};
use crate::handler::HandlerError;
use crate::reply::{Media, Reply, ReplyMessage, is_web_url};

/// Bytes of what is rendered: more than ten messages of 1600 characters.
const MOST_BYTES: usize = 64 * 1024;

/// One message of what is said.
#[derive(Clone)]
pub(super) struct Say {
    text: Option<Template>,
    media: Vec<(Template, Option<String>)>,
}

impl Templates {
    /// Says all of it.
    pub(super) fn reply(&self, says: &[Say], said: &Said<'_>) -> Result<Reply, HandlerError> {
        let is_plain = says.iter().all(Say::is_plain);
        let variables = if is_plain {
            Value::UNDEFINED
        } else {
            self.variables(said)
        };
        let mut bytes = 0;
        let mut messages = Vec::with_capacity(says.len());
        for say in says {
            let text = say.text.as_ref().map(|text| self.render(text, &variables));
            let text = text.transpose()?.unwrap_or_default();
            bytes += text.len();
            let mut message = ReplyMessage::text(text);
            for (template, content_type) in &say.media {
                let url = self.render(template, &variables)?;
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
            if bytes > MOST_BYTES {
                let line = say.text.as_ref().map_or(0, Template::line);
                return Err(HandlerError::new(RuleError::TooLarge { line }));
            }
            messages.push(message);
        }
        Ok(messages.into_iter().collect())
    }
}

impl Say {
    /// For the table of routes.
    pub(super) fn shown(&self) -> String {
        const MOST: usize = 50;
        let Some(text) = &self.text else {
            return "a file".to_owned();
        };
        let text = text.source();
        match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        }
    }

    fn is_plain(&self) -> bool {
        let mut media = self.media.iter().map(|(template, _)| template);
        let is_plain = |template: &Template| matches!(template, Template::Plain(_));
        self.text.as_ref().is_none_or(is_plain) && media.all(is_plain)
    }
}

/// Reads what is said: a text, a table, or several of them in brackets.
pub(super) fn read(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    value: &toml::Spanned<toml::de::DeValue<'_>>,
    names: &[String],
) -> Vec<Say> {
    if let Some(array) = value.get_ref().as_array() {
        if array.len() > MOST_MESSAGES {
            let text = "over ten messages: Twilio takes ten in one answer";
            reader.problem(&value.span(), text);
        }
        let says = array
            .iter()
            .filter_map(|value| one(reader, templates, value, names));
        return says.collect();
    }
    one(reader, templates, value, names).into_iter().collect()
}

/// Of one answer.
const MOST_MESSAGES: usize = 10;
/// Of one message.
const MOST_MEDIA: usize = 10;

fn one(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    value: &toml::Spanned<toml::de::DeValue<'_>>,
    names: &[String],
) -> Option<Say> {
    if let Some(text) = value.get_ref().as_str() {
        let text = At {
            value: text.to_owned(),
            span: value.span(),
        };
        return Some(Say {
            text: Some(templates.add(reader, &text, names)?),
            media: Vec::new(),
        });
    }
    if value.get_ref().as_table().is_none() {
        let text = "write a text in quotes, { text = \"…\", media = \"https://…\" }, or several of them in brackets";
        reader.problem(&value.span(), text);
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
                .map(|value| At {
                    value,
                    span: span.clone(),
                })
                .collect()
        }
        None => Vec::new(),
    };
    let mut media = Vec::new();
    if urls.len() > MOST_MEDIA {
        let text = "over ten files: Twilio takes ten in one message";
        reader.problem(&fields.span.clone(), text);
    }
    for url in urls {
        let is_plain = !url.value.contains("{{") && !url.value.contains("{%");
        if is_plain && !is_web_url(&url.value) {
            reader.problem(
                &url.span,
                "media is no http or https URL, as in \"https://example.com/menu.png\"",
            );
        }
        let template = templates.add(reader, &url, names)?;
        media.push((template, content_type.clone()));
    }
    if text.is_none() && media.is_empty() {
        reader.problem(
            &fields.span.clone(),
            "says nothing: write text, media, or both",
        );
    }
    reader.end(&fields);
    Some(Say {
        text: text.flatten(),
        media,
    })
}
