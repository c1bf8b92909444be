//! Parts of an inbound message that its reply needs.

use std::collections::BTreeMap;

use crate::address::Address;
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::reply::{
    ContentShape, Reply, ReplyMessage, TemplateContent, TemplateKey, WireMessage, WireRichContent,
};
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::AuthTokenKind;
use crate::store::{NewOutbound, ReplyQueue, TEMPLATE_LANGUAGE, TEMPLATE_NAME};
use crate::twiml::replace_invalid_chars;

/// Account, sender and user of an inbound message.
// The message itself is moved into the handler.
pub(super) struct Origin {
    pub(super) account: AccountSid,
    pub(super) sid: MessageSid,
    auth_token: AuthTokenKind,
    pub(super) sender: Address,
    pub(super) user: Address,
    service: Option<MessagingServiceSid>,
}

impl Origin {
    pub(super) fn of(message: &InboundMessage, auth_token: AuthTokenKind) -> Self {
        Self {
            account: message.account_sid,
            sid: message.message_sid,
            auth_token,
            sender: message.to.clone(),
            user: message.from.clone(),
            service: message.messaging_service_sid,
        }
    }

    /// Returns whether a message of the reply goes to the author of the inbound message.
    pub(super) fn is_sent_to_author(&self, message: &ReplyMessage) -> bool {
        message
            .recipient()
            .is_none_or(|recipient| *recipient == self.user)
    }

    /// Returns the queue of replies to the author.
    pub(super) fn queue(&self) -> ReplyQueue {
        ReplyQueue {
            sender: self.sender.normalized(),
            user: self.user.normalized(),
        }
    }

    /// Builds the outbox entries of a reply without media.
    pub(super) fn outbound_of(&self, reply: &Reply) -> Vec<NewOutbound> {
        let wire = reply.wire_messages(self.user.channel(), usize::MAX);
        let messages = wire.messages.iter();
        messages.map(|wire| self.outbound(wire)).collect()
    }

    /// Builds the outbox entry of a message of the reply.
    pub(super) fn outbound(&self, wire: &WireMessage<'_>) -> NewOutbound {
        let (sender, user) = (
            wire.from.unwrap_or(&self.sender).clone(),
            wire.to.unwrap_or(&self.user).clone(),
        );
        // A message with media alone has no `Body`.
        let text = replace_invalid_chars(&wire.text);
        let text = Some(&*text).filter(|text| !text.is_empty());
        // With the service as well, its settings apply: opt-outs, Smart Encoding, validity, shortened links. Twilio rejects
        // a `From` outside of the service's senders, which a sender that the bot has chosen may be.
        let service = self.service.as_ref().filter(|_| sender == self.sender);
        let service = service.map(MessagingServiceSid::as_str);
        let single = [
            ("To", Some(user.as_str())),
            ("From", Some(sender.as_str())),
            ("MessagingServiceSid", service),
            ("Body", text),
            ("StatusCallback", wire.status_callback),
        ];
        let single = single
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let media = wire
            .media
            .iter()
            .filter_map(|media| Some(("MediaUrl", media.link()?)));
        let params: FormParams = single.chain(media).collect();
        let content = wire
            .content
            .as_ref()
            .map(content_params)
            .unwrap_or_default();
        let params = content.iter().fold(params, |params, (name, value)| {
            params.iter().chain([(*name, value.as_str())]).collect()
        });
        NewOutbound {
            account: self.account,
            auth_token: self.auth_token,
            // The store knows the conversation by these. The call has the addresses as Twilio wrote them.
            sender: sender.normalized(),
            user: user.normalized(),
            // For consent, whatever the sender is.
            service: self.service,
            params,
            // A free-form message, unless it is a template of the bot: the outbox checks the window.
            template: matches!(wire.content, Some(WireRichContent::Template(_))),
        }
    }
}

/// Returns the parameters of a rich content, besides the text that replaces it.
fn content_params(content: &WireRichContent) -> Vec<(&'static str, String)> {
    let json = |variables: &BTreeMap<String, String>| {
        let clean = |text: &String| replace_invalid_chars(text).into_owned();
        let variables = variables
            .iter()
            .map(|(name, value)| (name.clone(), clean(value).into()));
        serde_json::Value::Object(variables.collect()).to_string()
    };
    match content {
        WireRichContent::Shape { shape, variables } => vec![
            (ContentShape::PARAM, shape.name()),
            ("ContentVariables", json(variables)),
        ],
        WireRichContent::Template(TemplateContent { key, variables }) => {
            let mut params = match key {
                TemplateKey::Sid(sid) => vec![("ContentSid", sid.clone())],
                TemplateKey::Name { name, language } => vec![
                    (TEMPLATE_NAME, name.clone()),
                    (TEMPLATE_LANGUAGE, language.clone()),
                ],
            };
            if !variables.is_empty() {
                params.push(("ContentVariables", json(variables)));
            }
            params
        }
        WireRichContent::Location(action) => vec![("PersistentAction", action.clone())],
    }
}
