//! A message as given by options or a row of a CSV file.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::bail;
use replyhook::choice::Choice;
use replyhook::twilio::NewMessage;
use replyhook::{Address, Media, MessagingServiceSid, ReplyMessage, Timestamp};

/// A message without its recipient.
#[derive(Clone, Default)]
pub(super) struct Draft {
    pub(super) from: Option<Address>,
    pub(super) service: Option<MessagingServiceSid>,
    pub(super) body: Option<String>,
    pub(super) template: Option<String>,
    /// Name and language of a template.
    pub(super) template_name: Option<(String, String)>,
    pub(super) question: Option<DraftQuestion>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) media: Vec<String>,
    pub(super) at: Option<Timestamp>,
}

/// Choices of a question, and its texts.
#[derive(Clone)]
pub(super) struct DraftQuestion {
    pub(super) choices: Vec<Choice>,
    pub(super) key: Option<String>,
    pub(super) button: Option<String>,
    pub(super) hint: Option<String>,
}

impl DraftQuestion {
    fn message(&self, text: &str, media: &[String]) -> ReplyMessage {
        let mut message = ReplyMessage::text(text).choices(&self.choices);
        for url in media {
            message = message.media(Media::url(url.as_str()));
        }
        if let Some(key) = &self.key {
            message = message.choices_key(key.as_str());
        }
        if let Some(button) = &self.button {
            message = message.choices_button(button.as_str());
        }
        if let Some(hint) = &self.hint {
            message = message.choices_hint(hint.as_str());
        }
        message
    }
}

impl Draft {
    pub(super) fn message(&self, to: Address) -> anyhow::Result<NewMessage> {
        if let Some(question) = &self.question {
            return match (&self.template, &self.body) {
                (None, Some(text)) if self.variables.is_empty() => {
                    let question = question.message(text, &self.media);
                    Ok(self.with_sender_and_time(NewMessage::reply(to, question)))
                }
                (None, None) => bail!("choices need a question; add a text"),
                _ => bail!("choices belong to a text, and a template has its own; leave one out"),
            };
        }
        if let Some((name, language)) = &self.template_name
            && self.template.is_none()
            && self.body.is_none()
        {
            let message = ReplyMessage::template(name.as_str(), language.as_str());
            let variables = self.variables.iter();
            let message = variables.fold(message, |message, (name, value)| {
                message.variable(name.as_str(), value.as_str())
            });
            return Ok(self.with_sender_and_time(NewMessage::reply(to, message)));
        }
        let message = match (&self.template, &self.body) {
            (Some(_), Some(_)) => bail!("both a text and a template are given; leave one out"),
            (Some(template), None) => NewMessage::template(to, template, self.variables.clone()),
            (None, _) if !self.variables.is_empty() => {
                bail!("variables without a template; add the template, or leave them out")
            }
            (None, None) if self.media.is_empty() => {
                bail!("nothing to send; add a text, a template, media or a location")
            }
            (None, body) => NewMessage::text(to, body.clone().unwrap_or_default()),
        };
        let message = self.media.iter().fold(message, NewMessage::media);
        Ok(self.with_sender_and_time(message))
    }

    /// Sets the sender and the time of a message.
    pub(super) fn with_sender_and_time(&self, mut message: NewMessage) -> NewMessage {
        if let Some(from) = &self.from {
            message = message.from(from.clone());
        }
        if let Some(service) = self.service {
            message = message.service(service);
        }
        if let Some(at) = self.at {
            message = message.send_at(at);
        }
        message
    }

    /// Returns the whole content of the message to a recipient as one text, for use as an idempotency key.
    pub(super) fn content_for(&self, to: &Address) -> String {
        // Changing this format changes the keys: a file that was sent before would be sent again. `Debug` quotes the
        // fields, so that two messages never have the same text.
        let from = self.from.as_ref().map(Address::as_str);
        let service = self.service.as_ref().map(MessagingServiceSid::as_str);
        let mut content = format!(
            "{:?}",
            (
                to.as_str(),
                from,
                service,
                &self.body,
                &self.template,
                &self.variables,
                &self.media,
                self.at.map(|at| at.to_string()),
            )
        );
        if let Some(names) = &self.template_name {
            let _ = write!(content, "{names:?}");
        }
        if let Some(question) = &self.question {
            let choices = question.choices.iter();
            let choices: Vec<_> = choices
                .map(|choice| (choice.id(), choice.title()))
                .collect();
            let texts = (&question.key, &question.button, &question.hint);
            let _ = write!(content, "{choices:?}{texts:?}");
        }
        content
    }
}
