//! Delivery news: [`StatusUpdate`].

use super::parse::{self, ParseError};
use super::parts::open_enum;
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::sid::{AccountSid, ChannelInstallSid, MessageSid, MessagingServiceSid};

open_enum! {
    /// Where a message is on its way. Order is not promised by Twilio, calls may be lost or repeated: compare
    /// [`MessageStatus::rank`].
    MessageStatus {
        /// A Messaging Service will choose the sender.
        Accepted = "accepted",
        /// Waits for its time.
        Scheduled = "scheduled",
        /// Waits for its sender.
        Queued = "queued",
        /// On its way to the carrier or channel.
        Sending = "sending",
        /// Taken by the carrier or channel.
        Sent = "sent",
        /// On the phone.
        Delivered = "delivered",
        /// Seen by the user (WhatsApp, RCS).
        Read = "read",
        /// Taken upstream, then not delivered. Final.
        Undelivered = "undelivered",
        /// Refused by Twilio or the first hop. Final.
        Failed = "failed",
        /// Called back before its time. Final.
        Canceled = "canceled",
        /// Inbound, on its way to you.
        Receiving = "receiving",
        /// Inbound.
        Received = "received",
        /// Deprecated by Twilio.
        PartiallyDelivered = "partially_delivered",
    }
}

impl MessageStatus {
    /// How far a message has come: only a higher rank is news. `None` for inbound and unknown ones.
    pub fn rank(&self) -> Option<u8> {
        Some(match self {
            Self::Accepted | Self::Scheduled => 0,
            Self::Queued => 1,
            Self::Sending => 2,
            Self::Sent => 3,
            Self::PartiallyDelivered | Self::Delivered => 4,
            Self::Read => 5,
            Self::Undelivered | Self::Failed | Self::Canceled => 6,
            Self::Receiving | Self::Received | Self::Other(_) => return None,
        })
    }

    /// Whether it says that the user will not see the message.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Undelivered | Self::Failed | Self::Canceled)
    }
}

/// One status callback.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StatusUpdate {
    /// `MessageSid` of the outbound message.
    pub message_sid: MessageSid,
    /// `AccountSid`.
    pub account_sid: AccountSid,
    /// `MessageStatus`.
    pub status: MessageStatus,
    /// `ErrorCode`, with `failed` and `undelivered`.
    pub error_code: Option<ErrorCode>,
    /// `ErrorMessage`: for people, not for programs.
    pub error_message: Option<String>,
    /// `From`: your sender.
    pub from: Option<Address>,
    /// `To`: the user.
    pub to: Option<Address>,
    /// `MessagingServiceSid`.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// `RawDlrDoneDate`: `YYMMDDhhmm`, the carrier's time, zone not stated.
    pub raw_dlr_done_date: Option<String>,
    /// `ChannelPrefix`: `whatsapp`, `rcs`, `messenger`.
    pub channel_prefix: Option<String>,
    /// `ChannelInstallSid`.
    pub channel_install_sid: Option<ChannelInstallSid>,
    /// `ChannelToAddress`, masked or whole.
    pub channel_to_address: Option<Address>,
    /// `ChannelStatusMessage`: the provider's text.
    pub channel_status_message: Option<String>,
    /// `ChannelStatusCode`.
    pub channel_status_code: Option<String>,
    /// `EventType`, such as `READ`.
    pub event_type: Option<String>,
    /// `StructuredMessage`.
    pub structured_message: Option<bool>,
    /// `ExternalUserId`.
    pub external_user_id: Option<Address>,
    /// `ParentExternalUserId`.
    pub parent_external_user_id: Option<Address>,
    /// `ApiVersion`.
    pub api_version: Option<String>,
    /// All decoded pairs in the order they came.
    pub params: Form,
}

impl StatusUpdate {
    /// Reads the pairs of a status callback.
    ///
    /// # Errors
    /// [`ParseError`] when `MessageSid`, `AccountSid` or `MessageStatus` is missing or malformed, or when a deciding
    /// parameter is ambiguous.
    pub fn parse(params: Form) -> Result<Self, ParseError> {
        parse::refuse_ambiguous(&params)?;
        let text = |name| parse::text(&params, name);
        let address = |name| text(name).map(Address::from);
        Ok(Self {
            message_sid: parse::required_sid(&params, "MessageSid")?,
            account_sid: parse::required_sid(&params, "AccountSid")?,
            status: MessageStatus::parse(
                &text("MessageStatus").ok_or_else(|| ParseError::missing("MessageStatus"))?,
            ),
            error_code: parse::parsed(&params, "ErrorCode"),
            error_message: text("ErrorMessage"),
            from: address("From"),
            to: address("To"),
            messaging_service_sid: parse::parsed(&params, "MessagingServiceSid"),
            raw_dlr_done_date: text("RawDlrDoneDate"),
            channel_prefix: text("ChannelPrefix"),
            channel_install_sid: parse::parsed(&params, "ChannelInstallSid"),
            channel_to_address: address("ChannelToAddress"),
            channel_status_message: text("ChannelStatusMessage"),
            channel_status_code: text("ChannelStatusCode"),
            event_type: text("EventType"),
            structured_message: parse::parsed(&params, "StructuredMessage"),
            external_user_id: address("ExternalUserId"),
            parent_external_user_id: address("ParentExternalUserId"),
            api_version: text("ApiVersion"),
            params,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_rise_along_the_way_and_final_failures_stand_above_all() {
        let way = [
            "accepted",
            "queued",
            "sending",
            "sent",
            "delivered",
            "read",
            "failed",
        ];
        let ranks: Vec<_> = way
            .iter()
            .map(|text| MessageStatus::parse(text).rank().unwrap())
            .collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(MessageStatus::parse("teleported").rank(), None);
    }

    #[test]
    fn an_unknown_status_is_kept_and_a_missing_one_refused() {
        let sids = [
            ("MessageSid", "SM00000000000000000000000000000001"),
            ("AccountSid", "AC00000000000000000000000000000001"),
        ];
        let update = StatusUpdate::parse(
            sids.iter()
                .chain(&[("MessageStatus", "teleported")])
                .copied()
                .collect(),
        );
        assert_eq!(
            update.unwrap().status,
            MessageStatus::Other("teleported".into())
        );
        assert_eq!(
            StatusUpdate::parse(sids.into_iter().collect()).unwrap_err(),
            ParseError::missing("MessageStatus")
        );
    }
}
