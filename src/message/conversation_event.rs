//! What Twilio Conversations tell: [`ConversationEvent`].

use std::fmt;

use super::parse::{self, ParseError};
use crate::address::Address;
use crate::form::Form;
use crate::sid::{AccountSid, ChatServiceSid, ConversationSid};

/// One webhook of Twilio Conversations, another product than the one whose messages bots answer: it tells that something
/// has happened, and what it is answered with is not executed.
///
/// Source: Twilio's "Conversations webhooks" page. Its parameters are many and differ by event: those that are not here are
/// in [`params`](Self::params).
///
/// ```
/// use replyhook::{ConversationEvent, Form};
///
/// let form = Form::from_iter([
///     ("EventType", "onMessageAdded"),
///     ("AccountSid", "AC00000000000000000000000000000001"),
///     ("ConversationSid", "CH00000000000000000000000000000001"),
///     ("Body", "hi"),
/// ]);
/// assert!(ConversationEvent::is_one(&form));
/// let event = ConversationEvent::parse(form)?;
/// assert_eq!(event.conversation_sid, "CH00000000000000000000000000000001".parse().ok());
/// assert_eq!(event.body.as_deref(), Some("hi"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ConversationEvent {
    /// `EventType`: `onMessageAdded`, `onConversationAdded`, `onParticipantAdded`, `onDeliveryUpdated` …
    pub event_type: String,
    /// `AccountSid`.
    pub account_sid: AccountSid,
    /// `ConversationSid`; events of users have none.
    pub conversation_sid: Option<ConversationSid>,
    /// `ChatServiceSid`: the Conversations service.
    pub chat_service_sid: Option<ChatServiceSid>,
    /// `MessageSid`: `IM…`, which is no SID of a message that bots answer.
    pub message_sid: Option<String>,
    /// `ParticipantSid`: `MB…`.
    pub participant_sid: Option<String>,
    /// `Author`: an identity, or a user's address.
    pub author: Option<String>,
    /// `Body`: what was said. A user's is untrusted.
    pub body: Option<String>,
    /// `Source`: `SMS`, `WHATSAPP`, `API`, `SDK` …
    pub source: Option<String>,
    /// `MessagingBinding.Address`, which comes as often as there are addresses: who takes part by SMS or WhatsApp.
    pub addresses: Vec<Address>,
    /// `MessagingBinding.ProxyAddress`: your number.
    pub proxy_address: Option<Address>,
    /// `RetryCount`: how often it was told before.
    pub retry_count: Option<u32>,
    /// All decoded pairs in the order they came.
    pub params: Form,
}

/// Parameters of which two different values are refused.
const DECIDING: [&str; 4] = ["EventType", "AccountSid", "ConversationSid", "MessageSid"];

impl ConversationEvent {
    /// Whether these are the pairs of such a webhook: status callbacks have an `EventType` too, such as `READ`.
    pub fn is_one(params: &Form) -> bool {
        let event = params
            .get("EventType")
            .and_then(|event| event.strip_prefix("on"));
        event.is_some_and(|event| event.starts_with(|first: char| first.is_ascii_uppercase()))
    }

    /// Reads the pairs of such a webhook.
    ///
    /// # Errors
    /// [`ParseError`] when `EventType` or `AccountSid` is missing or malformed, or when one of them, `ConversationSid` or
    /// `MessageSid` has two values.
    pub fn parse(params: Form) -> Result<Self, ParseError> {
        for name in DECIDING {
            params.single(name)?;
        }
        let text = |name| parse::text(&params, name);
        let addresses = params
            .iter()
            .filter(|(name, value)| *name == "MessagingBinding.Address" && !value.is_empty())
            .map(|(_, value)| value.into());
        Ok(Self {
            event_type: text("EventType").ok_or_else(|| ParseError::missing("EventType"))?,
            account_sid: parse::required_sid(&params, "AccountSid")?,
            conversation_sid: parse::parsed(&params, "ConversationSid"),
            chat_service_sid: parse::parsed(&params, "ChatServiceSid"),
            message_sid: text("MessageSid"),
            participant_sid: text("ParticipantSid"),
            author: text("Author"),
            body: text("Body"),
            source: text("Source"),
            addresses: addresses.collect(),
            proxy_address: text("MessagingBinding.ProxyAddress").map(Address::from),
            retry_count: parse::parsed(&params, "RetryCount"),
            params,
        })
    }
}

/// What happened, and no text of anybody's.
impl fmt::Debug for ConversationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConversationEvent")
            .field("event_type", &self.event_type)
            .field("account_sid", &self.account_sid)
            .field("conversation_sid", &self.conversation_sid)
            .field("addresses", &self.addresses)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_of_conversations_is_told_by_its_event() {
        for (event, is_one) in [
            ("onMessageAdded", true),
            ("onUserUpdate", true),
            ("READ", false),
            ("on", false),
            ("one", false),
            ("", false),
        ] {
            let params = Form::from_iter([("EventType", event)]);
            assert_eq!(ConversationEvent::is_one(&params), is_one, "{event}");
        }
        assert!(!ConversationEvent::is_one(&Form::default()));
    }

    #[test]
    fn debug_shows_no_text() {
        let params = Form::from_iter([
            ("EventType", "onMessageAdded"),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("Author", "a secret"),
            ("Body", "a secret"),
            ("MessagingBinding.Address", "+15550417263"),
        ]);
        let shown = format!("{:?}", ConversationEvent::parse(params).unwrap());
        assert!(
            !shown.contains("secret") && !shown.contains("417263"),
            "{shown}"
        );
    }
}
