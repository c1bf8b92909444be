//! Delivery news: [`StatusUpdate`].

use super::message_status::MessageStatus;
use super::parse::{self, ParseError};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::sid::{AccountSid, ChannelInstallSid, MessageSid, MessagingServiceSid};

/// One status callback.
///
/// ```
/// use replyhook::{Form, MessageStatus, StatusUpdate};
///
/// let form = Form::from_iter([
///     ("MessageSid", "SM00000000000000000000000000000001"),
///     ("AccountSid", "AC00000000000000000000000000000001"),
///     ("MessageStatus", "undelivered"),
///     ("ErrorCode", "63016"),
/// ]);
/// let update = StatusUpdate::parse(form)?;
/// assert_eq!(update.status, MessageStatus::Undelivered);
/// assert!(update.status.is_failure());
/// let meaning = update.error_code.and_then(|code| code.meaning());
/// assert_eq!(meaning, Some("free-form text outside the 24-hour window: use a template"));
/// # Ok::<(), replyhook::message::ParseError>(())
/// ```
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
