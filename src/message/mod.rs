//! What Twilio sends: [`InboundMessage`] and its parts, [`StatusUpdate`], [`FallbackCause`], [`ConversationEvent`].
//!
//! Pairs become types here, at the edge, and nowhere else. Three rules hold:
//!
//! 1. What identifies a message (`MessageSid`, `AccountSid`, `From`, `To`) must be there and well formed; a signature
//!    has no delimiters, so a shape is part of its meaning.
//! 2. A parameter that decides something may not come with two different values.
//! 3. Everything else may be missing, new or odd, and costs nothing: it is `None`, or an enum's `Other`, and the decoded
//!    pairs stay readable in [`InboundMessage::params`].
//!
//! Source of the parameters: Twilio's "Messaging webhook request" page and captured requests.

mod conversation_event;
mod fallback;
#[cfg(feature = "app")]
mod merge;
mod message_status;
mod parse;
mod parts;
mod status;

use std::fmt;

pub use conversation_event::ConversationEvent;
pub use fallback::FallbackCause;
use jiff::Timestamp;
pub use message_status::MessageStatus;
pub use parse::{ParseError, ParseErrorKind};
pub use parts::{
    Button, JsonText, ListChoice, Location, MediaItem, MessageType, OptOutType, Place, Referral,
    ReferralSource, RepliedTo,
};
pub use status::StatusUpdate;

use crate::address::{Address, Channel};
use crate::form::Form;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// One message of a user, as the primary or fallback webhook received it.
///
/// ```
/// use replyhook::{Form, InboundMessage, Timestamp};
///
/// let form = Form::from_iter([
///     ("MessageSid", "SM00000000000000000000000000000001"),
///     ("AccountSid", "AC00000000000000000000000000000001"),
///     ("From", "whatsapp:+15550001111"),
///     ("To", "whatsapp:+15550002222"),
///     ("Body", "hi"),
///     ("ProfileName", "Ana"),
/// ]);
/// let message = InboundMessage::parse(form, Timestamp::UNIX_EPOCH)?;
/// assert_eq!(message.body, "hi");
/// assert_eq!(message.profile_name.as_deref(), Some("Ana"));
/// assert!(message.media.is_empty());
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct InboundMessage {
    /// `MessageSid`: the same for every delivery of this message.
    pub message_sid: MessageSid,
    /// `AccountSid`: the account, or subaccount, that owns the receiving sender.
    pub account_sid: AccountSid,
    /// `MessagingServiceSid`, when a Messaging Service is involved.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// `From`: the user.
    pub from: Address,
    /// `To`: the sender of yours that was written to.
    pub to: Address,
    /// `Body`: up to 1600 characters (more where messages are [`merged`](Self::merged)), untrusted. Empty with most media and every location.
    pub body: String,
    /// `MediaUrl{N}` and `MediaContentType{N}`, in order of N, whatever `NumMedia` says.
    pub media: Vec<MediaItem>,
    /// `NumMedia` as Twilio counted; [`media`](Self::media) is what came.
    pub num_media: Option<u32>,
    /// `NumSegments`: always 1 on anything but SMS and MMS.
    pub num_segments: Option<u32>,
    /// `MessageType`.
    pub message_type: Option<MessageType>,
    /// `SmsStatus`, `received` on every inbound message.
    pub sms_status: Option<MessageStatus>,
    /// `ProfileName`: the display name the user chose, any Unicode, untrusted.
    pub profile_name: Option<String>,
    /// `WaId`: digits without `+`; missing for users without a visible phone number.
    pub wa_id: Option<String>,
    /// `ExternalUserId`: the business-scoped id of a WhatsApp user (2026).
    pub external_user_id: Option<Address>,
    /// `ParentExternalUserId`: the same across linked portfolios.
    pub parent_external_user_id: Option<Address>,
    /// `Latitude` and `Longitude`, with `Address` and `Label`.
    pub location: Option<Location>,
    /// `ButtonText`, `ButtonPayload`, `ButtonType`.
    pub button: Option<Button>,
    /// `ListId`, `ListTitle`, `ListDescription`.
    pub list: Option<ListChoice>,
    /// `InteractiveData`: JSON of an interactive answer.
    pub interactive_data: Option<JsonText>,
    /// `FlowData`: JSON of a WhatsApp Flow's result.
    pub flow_data: Option<JsonText>,
    /// `ChannelMetadata`: JSON whose schema Twilio does not promise.
    pub channel_metadata: Option<JsonText>,
    /// `AddOns`: JSON, with Marketplace add-ons only.
    pub add_ons: Option<JsonText>,
    /// `Forwarded`.
    pub forwarded: Option<bool>,
    /// `FrequentlyForwarded`.
    pub frequently_forwarded: Option<bool>,
    /// `OriginalRepliedMessageSid` and `…Sender`: the message that this one quotes.
    pub replied_to: Option<RepliedTo>,
    /// `Referral…`: the advertisement or post the user came from.
    pub referral: Option<Referral>,
    /// `OptOutType`, with Advanced Opt-Out: Twilio has already answered.
    pub opt_out_type: Option<OptOutType>,
    /// `FromCity`, `FromState`, `FromZip`, `FromCountry` (SMS and MMS).
    pub from_place: Place,
    /// `ToCity`, `ToState`, `ToZip`, `ToCountry` (SMS and MMS).
    pub to_place: Place,
    /// `ApiVersion`.
    pub api_version: Option<String>,
    /// When the server had verified the request; Twilio sends no time.
    pub received_at: Timestamp,
    /// With `reply.debounce_ms`: the further messages that are handled in this one's turn, in order. Their texts are lines of
    /// [`body`](Self::body), their files are in [`media`](Self::media), and each of the other parts is that of the one
    /// message that has it; everything else is the first one's, and so is what you answer.
    pub merged: Vec<MessageSid>,
    /// All decoded pairs in the order they came, known or not: the very ones that were verified. Of several messages that
    /// are handled as one, those of each, one after the other.
    pub params: Form,
}

impl InboundMessage {
    /// Reads the pairs of an inbound message.
    ///
    /// # Errors
    /// [`ParseError`] when an identifying parameter is missing or malformed, or when a deciding one is ambiguous.
    pub fn parse(params: Form, received_at: Timestamp) -> Result<Self, ParseError> {
        parse::inbound(params, received_at)
    }

    /// The channel it came by.
    pub fn channel(&self) -> &Channel {
        self.from.channel()
    }

    /// The body, if there is more to it than white space.
    pub fn text(&self) -> Option<&str> {
        (!self.body.trim().is_empty()).then_some(self.body.as_str())
    }
}

/// Identifiers and shapes only: no number, no name, no text.
impl fmt::Debug for InboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundMessage")
            .field("message_sid", &self.message_sid)
            .field("account_sid", &self.account_sid)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("body_len", &self.body.len())
            .field("media", &self.media)
            .field("message_type", &self.message_type)
            .field("merged", &self.merged)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
