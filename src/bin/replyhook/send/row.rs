//! A message as given by options or a row of a CSV file.

use std::collections::BTreeMap;

use anyhow::bail;
use replyhook::twilio::NewMessage;
use replyhook::{Address, MessagingServiceSid, Timestamp};

/// A message without its recipient.
#[derive(Clone, Default)]
pub(super) struct Draft {
    pub(super) from: Option<Address>,
    pub(super) service: Option<MessagingServiceSid>,
    pub(super) body: Option<String>,
    pub(super) template: Option<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) media: Vec<String>,
    pub(super) at: Option<Timestamp>,
}

impl Draft {
    pub(super) fn message(&self, to: Address) -> anyhow::Result<NewMessage> {
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
        format!(
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
        )
    }
}
