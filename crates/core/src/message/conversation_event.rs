//! Webhooks of Twilio Conversations: [`ConversationEvent`].

use std::fmt;

use super::parse::{self, ParseError};
use crate::address::Address;
use crate::form::FormParams;
use crate::sid::{AccountSid, ChatServiceSid, ConversationSid};

/// A webhook of Twilio Conversations, a product other than Programmable Messaging. It reports an event; Twilio does not
/// execute TwiML in the response.
///
/// Source: Twilio's "Conversations webhooks" page. Events have many more parameters, which differ by event; they are in
/// [`params`](Self::params).
///
/// ```
/// use replyhook::{ConversationEvent, FormParams};
///
/// let form = FormParams::from_iter([
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
    /// `EventType`, such as `onMessageAdded`, `onConversationAdded`, `onParticipantAdded` or `onDeliveryUpdated`.
    pub event_type: String,
    /// `AccountSid`.
    pub account_sid: AccountSid,
    /// `ConversationSid`; missing in events about users.
    pub conversation_sid: Option<ConversationSid>,
    /// `ChatServiceSid`: the Conversations service.
    pub chat_service_sid: Option<ChatServiceSid>,
    /// `MessageSid`: `IM…`, which is not the SID of a Programmable Messaging message.
    pub message_sid: Option<String>,
    /// `ParticipantSid`: `MB…`.
    pub participant_sid: Option<String>,
    /// `Author`: an identity of Twilio Conversations, or a user's address.
    pub author: Option<String>,
    /// `Body`: the text of the message. Untrusted if a user wrote it.
    pub body: Option<String>,
    /// `Source`, such as `SMS`, `WHATSAPP`, `API` or `SDK`.
    pub source: Option<String>,
    /// `MessagingBinding.Address`, repeated for each address: the participants on SMS or WhatsApp.
    pub addresses: Vec<Address>,
    /// `MessagingBinding.ProxyAddress`: your sender.
    pub proxy_address: Option<Address>,
    /// `RetryCount`: number of earlier attempts to deliver this event.
    pub retry_count: Option<u32>,
    /// All decoded parameters in the order received.
    pub params: FormParams,
}

/// Parameters of an event that must not have two different values.
// Fewer than for messages, since an event only reaches a hook. `MessagingBinding.Address` repeats by design.
const UNAMBIGUOUS_EVENT_PARAMS: [&str; 4] =
    ["EventType", "AccountSid", "ConversationSid", "MessageSid"];

impl ConversationEvent {
    /// Returns whether parameters are those of a Conversations webhook: `EventType` is `on` followed by an upper-case
    /// letter.
    pub fn is_one(params: &FormParams) -> bool {
        // The mere presence of `EventType` is not enough: status callbacks have one too, such as `READ`.
        let event = params
            .get("EventType")
            .and_then(|event| event.strip_prefix("on"));
        event.is_some_and(|event| event.starts_with(|first: char| first.is_ascii_uppercase()))
    }

    /// Parses the parameters of a Conversations webhook.
    ///
    /// # Errors
    /// [`ParseError`] if `EventType` or `AccountSid` is missing or malformed, or if one of them, `ConversationSid` or
    /// `MessageSid` has two different values.
    pub fn parse(params: FormParams) -> Result<Self, ParseError> {
        for name in UNAMBIGUOUS_EVENT_PARAMS {
            params.get_unique(name)?;
        }
        let text = |name| parse::optional_text(&params, name);
        let addresses = params
            .iter()
            .filter(|(name, value)| *name == "MessagingBinding.Address" && !value.is_empty())
            .map(|(_, value)| value.into());
        Ok(Self {
            event_type: text("EventType").ok_or_else(|| ParseError::missing("EventType"))?,
            account_sid: parse::required_sid(&params, "AccountSid")?,
            conversation_sid: parse::parse_optional(&params, "ConversationSid"),
            chat_service_sid: parse::parse_optional(&params, "ChatServiceSid"),
            message_sid: text("MessageSid"),
            participant_sid: text("ParticipantSid"),
            author: text("Author"),
            body: text("Body"),
            source: text("Source"),
            addresses: addresses.collect(),
            proxy_address: text("MessagingBinding.ProxyAddress").map(Address::from),
            retry_count: parse::parse_optional(&params, "RetryCount"),
            params,
        })
    }
}

/// Shows the event, and no text of a user.
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
    fn conversations_webhook_is_detected_by_event_type() {
        for (event, is_one) in [
            ("onMessageAdded", true),
            ("onUserUpdate", true),
            ("READ", false),
            ("on", false),
            ("one", false),
            ("", false),
        ] {
            let params = FormParams::from_iter([("EventType", event)]);
            assert_eq!(ConversationEvent::is_one(&params), is_one, "{event}");
        }
        assert!(!ConversationEvent::is_one(&FormParams::default()));
    }

    #[test]
    fn debug_shows_no_text() {
        let params = FormParams::from_iter([
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
