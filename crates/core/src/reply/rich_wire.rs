//! Rich contents as they are sent, with the text that replaces each on a channel or after a failure.

use std::collections::BTreeMap;

use super::content_shape::ContentShape;
use super::messages::ReplyMessage;
use super::rich_content::{ChoiceQuestion, Place, RichContent, TemplateContent};
use super::text_limit::MAX_TEXT_UNITS;
use crate::address::Channel;
use crate::choice::{ChoiceForm, ChoiceVia, TapPayload};

/// Maximum length of the title of a link button.
const MAX_LINK_TITLE: usize = 20;
/// Maximum length of the text above a link button on WhatsApp and Messenger.
const MAX_LINK_TEXT: usize = 640;

/// Rich content of a message on a channel that has it.
#[derive(Clone, PartialEq, Eq)]
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub enum WireRichContent {
    /// Content resource of a shape, which is made on first use.
    Shape {
        shape: ContentShape,
        variables: BTreeMap<String, String>,
    },
    Template(TemplateContent),
    /// `PersistentAction` of a location.
    Location(String),
}

/// Text and rich content of a message on a channel.
pub(super) struct RenderedContent {
    /// The text that says the same without the rich content.
    pub(super) text: String,
    /// Lines of the text, if it may only be split between them.
    pub(super) lines: Vec<String>,
    pub(super) content: Option<WireRichContent>,
}

impl RenderedContent {
    fn new(text: impl Into<String>, content: Option<WireRichContent>) -> Self {
        Self {
            text: text.into(),
            lines: Vec::new(),
            content,
        }
    }
}

/// Renders the rich content of a message with its text, which is converted already. `None` if the message has none.
pub(super) fn render_content(
    message: &ReplyMessage,
    text: &str,
    channel: &Channel,
) -> Option<RenderedContent> {
    Some(match message.rich.as_deref()? {
        RichContent::Choices(question) => question.render(text, channel),
        RichContent::Template(template) => {
            RenderedContent::new(text, Some(WireRichContent::Template(template.clone())))
        }
        RichContent::Location(place) => place.render(channel),
        RichContent::Link { title, url } => render_link(text, title, url, channel),
    })
}

impl ChoiceQuestion {
    pub(super) fn render(&self, text: &str, channel: &Channel) -> RenderedContent {
        // Invalid choices fail the handler, so a reply that gets here has valid ones.
        let Ok(choices) = &self.choices else {
            return RenderedContent::new(text, None);
        };
        let lines = choices.numbered_lines(text, self.hint.as_deref());
        let numbered = lines.join("\n");
        let form = ChoiceForm::of(channel, text, choices, self.button.as_deref());
        let content = || {
            let shape = ContentShape::of(form, choices)?;
            let via = match form {
                ChoiceForm::Buttons => ChoiceVia::Button,
                ChoiceForm::List => ChoiceVia::List,
                ChoiceForm::Chips => ChoiceVia::Chip,
                ChoiceForm::Text => return None,
            };
            // A payload that is too long for a button steps down to the text, like a title.
            let payloads = choices.iter().map(|choice| {
                let payload = TapPayload {
                    via,
                    question: self.id.clone()?,
                    key: self.key.clone(),
                    id: choice.id().to_owned(),
                };
                payload.encode()
            });
            let payloads = payloads.collect::<Option<Vec<_>>>()?;
            let label = self.button.as_deref().unwrap_or_default();
            let variables = shape.question_variables(text, label, choices, payloads);
            shaped(shape, variables, &numbered)
        };
        RenderedContent {
            content: content(),
            text: numbered,
            lines,
        }
    }
}

/// Returns the content of a shape, unless the text that stands for it is too long for a variable.
fn shaped(
    shape: ContentShape,
    mut variables: BTreeMap<String, String>,
    text: &str,
) -> Option<WireRichContent> {
    if units(text) > MAX_TEXT_UNITS {
        return None;
    }
    variables.insert("text".to_owned(), text.to_owned());
    Some(WireRichContent::Shape { shape, variables })
}

impl Place {
    fn render(&self, channel: &Channel) -> RenderedContent {
        let Some((latitude, longitude)) = &self.coordinates else {
            return RenderedContent::new(self.label.as_str(), None);
        };
        if *channel == Channel::WhatsApp {
            let label = self.label.trim();
            let point = format!("geo:{latitude},{longitude}");
            let action = if label.is_empty() {
                point
            } else {
                format!("{point}|{label}")
            };
            // Twilio requires a text. Without a label it is the coordinates.
            let text = if label.is_empty() {
                format!("{latitude}, {longitude}")
            } else {
                label.to_owned()
            };
            return RenderedContent::new(text, Some(WireRichContent::Location(action)));
        }
        let url = format!("https://www.google.com/maps/search/?api=1&query={latitude},{longitude}");
        RenderedContent::new(join_lines(&self.label, &url), None)
    }
}

fn render_link(text: &str, title: &str, url: &str, channel: &Channel) -> RenderedContent {
    let title = title.trim();
    let in_text = if title.is_empty() {
        join_lines(text, url)
    } else {
        join_lines(text, &format!("{title}: {url}"))
    };
    let (shape, max_text) = match channel {
        Channel::WhatsApp | Channel::Messenger => (Some(ContentShape::Link), MAX_LINK_TEXT),
        Channel::Rcs => (Some(ContentShape::LinkCard), MAX_TEXT_UNITS),
        Channel::Sms | Channel::Other(_) => (None, 0),
    };
    let fits = !text.trim().is_empty()
        && units(text) <= max_text
        && (1..=MAX_LINK_TITLE).contains(&units(title))
        && !title.contains(char::is_control);
    let content = shape.filter(|_| fits).and_then(|shape| {
        let variables = [("body", text), ("t1", title), ("url", url)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        shaped(shape, BTreeMap::from(variables), &in_text)
    });
    RenderedContent::new(in_text, content)
}

fn join_lines(first: &str, second: &str) -> String {
    if first.trim().is_empty() {
        return second.to_owned();
    }
    format!("{}\n{second}", first.trim_end())
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}
