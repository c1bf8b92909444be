//! What is sent, as options or a row of a file say it.

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
            (Some(_), Some(_)) => bail!("it has a text and a template: one of them"),
            (Some(template), None) => NewMessage::template(to, template, self.variables.clone()),
            (None, _) if !self.variables.is_empty() => bail!("variables are those of a template"),
            (None, None) if self.media.is_empty() => {
                bail!("there is nothing to send: a text, a template, a file or a place")
            }
            (None, body) => NewMessage::text(to, body.clone().unwrap_or_default()),
        };
        let message = self.media.iter().fold(message, NewMessage::media);
        Ok(self.addressed(message))
    }

    /// With its sender and its time.
    pub(super) fn addressed(&self, mut message: NewMessage) -> NewMessage {
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

    /// All that it says to somebody, as one text.
    pub(super) fn said_to(&self, to: &Address) -> String {
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
