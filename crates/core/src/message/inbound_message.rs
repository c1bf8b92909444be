//! An inbound message as a type.

use std::fmt;

use jiff::Timestamp;

use super::flow;
use super::message_status::MessageStatus;
use super::parts::{
    Button, GeoInfo, JsonText, ListChoice, Location, MediaItem, MessageType, OptOutType, Referral,
    RepliedTo,
};
use crate::address::{Address, Channel};
use crate::form::FormParams;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// A message of a user, as the primary webhook or the fallback URL received it.
///
/// ```
/// use replyhook::{FormParams, InboundMessage, Timestamp};
///
/// let form = FormParams::from_iter([
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
    /// `MessageSid`, the same in every redelivery of this message.
    pub message_sid: MessageSid,
    /// `AccountSid`: the account or subaccount that owns the sender in [`to`](Self::to).
    pub account_sid: AccountSid,
    /// `MessagingServiceSid`, if the sender belongs to a Messaging Service.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// `From`: the user.
    pub from: Address,
    /// `To`: your sender.
    pub to: Address,
    /// `Body`: up to 1600 characters, more if messages are [`merged`](Self::merged). Untrusted. Empty for most media
    /// and for every location.
    pub body: String,
    /// `MediaUrl{N}` and `MediaContentType{N}`, in the order of N. `NumMedia` does not limit them.
    pub media: Vec<MediaItem>,
    /// `NumMedia`: Twilio's count, which may differ from the length of [`media`](Self::media).
    pub num_media: Option<u32>,
    /// `NumSegments`: always 1 on channels other than SMS and MMS.
    pub num_segments: Option<u32>,
    /// `MessageType`.
    pub message_type: Option<MessageType>,
    /// `SmsStatus`, `received` on every inbound message.
    pub sms_status: Option<MessageStatus>,
    /// `ProfileName`: the display name that the user chose. Any Unicode text, untrusted.
    pub profile_name: Option<String>,
    /// `WaId`: the user's number as digits without `+`. Missing if the number is hidden.
    pub wa_id: Option<String>,
    /// `ExternalUserId`: the business-scoped ID of a WhatsApp user (since 2026).
    pub external_user_id: Option<Address>,
    /// `ParentExternalUserId`: the ID of the same user across linked portfolios.
    pub parent_external_user_id: Option<Address>,
    /// `Latitude` and `Longitude`, with `Address` and `Label`.
    pub location: Option<Location>,
    /// `ButtonText`, `ButtonPayload`, `ButtonType`.
    pub button: Option<Button>,
    /// `ListId`, `ListTitle`, `ListDescription`.
    pub list: Option<ListChoice>,
    /// `InteractiveData`: JSON of an interactive response.
    pub interactive_data: Option<JsonText>,
    /// `FlowData`: JSON of a WhatsApp Flow's result.
    pub flow_data: Option<JsonText>,
    /// `ChannelMetadata`: JSON without a documented schema.
    pub channel_metadata: Option<JsonText>,
    /// `AddOns`: JSON, only with Marketplace add-ons.
    pub add_ons: Option<JsonText>,
    /// `Forwarded`.
    pub forwarded: Option<bool>,
    /// `FrequentlyForwarded`.
    pub frequently_forwarded: Option<bool>,
    /// `OriginalRepliedMessageSid` and `…Sender`: the message that this one quotes.
    pub replied_to: Option<RepliedTo>,
    /// `Referral…`: the advertisement or post that led the user here.
    pub referral: Option<Referral>,
    /// `OptOutType`, with Advanced Opt-Out. Twilio has already replied to the user.
    pub opt_out_type: Option<OptOutType>,
    /// `FromCity`, `FromState`, `FromZip`, `FromCountry` (SMS and MMS).
    pub from_geo: GeoInfo,
    /// `ToCity`, `ToState`, `ToZip`, `ToCountry` (SMS and MMS).
    pub to_geo: GeoInfo,
    /// `ApiVersion`.
    pub api_version: Option<String>,
    /// Time at which the server had verified the request. Twilio does not send a time.
    pub received_at: Timestamp,
    /// With `reply.debounce_ms`: SIDs of the further messages that the handler gets together with this one, in order.
    ///
    /// Their texts are lines of [`body`](Self::body), and their files are in [`media`](Self::media). A part such as
    /// [`button`](Self::button) comes from the one message that has it. The counts are sums, and
    /// [`profile_name`](Self::profile_name) is the latest one. Other fields are those of the first message, to which
    /// the handler replies.
    pub merged: Vec<MessageSid>,
    /// All decoded parameters in the order received, including unknown ones: exactly those that were verified. With
    /// merged messages, the parameters of each message follow one another.
    pub params: FormParams,
}

impl InboundMessage {
    /// Returns the channel of the message.
    pub fn channel(&self) -> &Channel {
        self.from.channel()
    }

    /// Returns the fields of a WhatsApp Flow's result by name; `None` if the message is not a valid one.
    ///
    /// ```
    /// use replyhook::{InboundMessage, Timestamp};
    ///
    /// # let pairs = [("MessageSid", "SM00000000000000000000000000000001"), ("From", "whatsapp:+15550001111"),
    /// #     ("AccountSid", "AC00000000000000000000000000000001"), ("To", "whatsapp:+15550002222")];
    /// let result = [("FlowData", r#"{"guests": 2}"#)];
    /// let message = InboundMessage::parse(pairs.into_iter().chain(result).collect(), Timestamp::UNIX_EPOCH)?;
    /// assert_eq!(message.flow_fields().expect("a result")["guests"], 2);
    /// # Ok::<(), replyhook::message::ParseError>(())
    /// ```
    pub fn flow_fields(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        flow::fields(self.flow_data.as_ref(), self.interactive_data.as_ref())
    }

    /// Returns the body, unless it is empty or white space only.
    pub fn text(&self) -> Option<&str> {
        (!self.body.trim().is_empty()).then_some(self.body.as_str())
    }
}

/// Shows identifiers, lengths and types, but no phone number, name or text.
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
