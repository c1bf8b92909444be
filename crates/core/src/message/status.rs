//! Status callbacks: [`StatusUpdate`].

use super::message_status::MessageStatus;
use super::parse::{self, ParseError};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::sid::{AccountSid, ChannelInstallSid, MessageSid, MessagingServiceSid};

/// A status callback of an outbound message or reply.
///
/// ```
/// use replyhook::{FormParams, MessageStatus, StatusUpdate};
///
/// let form = FormParams::from_iter([
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
    /// `ErrorMessage`: a text for people. Programs should use [`error_code`](Self::error_code).
    pub error_message: Option<String>,
    /// `From`: your sender.
    pub from: Option<Address>,
    /// `To`: the user.
    pub to: Option<Address>,
    /// `MessagingServiceSid`.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// `RawDlrDoneDate`: the carrier's time as `YYMMDDhhmm`, in an unspecified time zone.
    pub raw_dlr_done_date: Option<String>,
    /// `ChannelPrefix`: `whatsapp`, `rcs`, `messenger`.
    pub channel_prefix: Option<String>,
    /// `ChannelInstallSid`.
    pub channel_install_sid: Option<ChannelInstallSid>,
    /// `ChannelToAddress`: the user's address, sometimes masked by Twilio.
    pub channel_to_address: Option<Address>,
    /// `ChannelStatusMessage`: the text of the channel's provider.
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
    /// All decoded parameters in the order received.
    pub params: FormParams,
}

impl StatusUpdate {
    /// Parses the parameters of a status callback.
    ///
    /// # Errors
    /// [`ParseError`] if `MessageSid`, `AccountSid` or `MessageStatus` is missing or malformed, or if a parameter on
    /// which a decision depends has two different values.
    pub fn parse(params: FormParams) -> Result<Self, ParseError> {
        // Before anything is read: the reads below take the first value of a name.
        parse::reject_ambiguous(&params)?;
        let text = |name| parse::optional_text(&params, name);
        let address = |name| text(name).map(Address::from);
        Ok(Self {
            message_sid: parse::required_sid(&params, "MessageSid")?,
            account_sid: parse::required_sid(&params, "AccountSid")?,
            // An unknown status becomes `Other`: rejecting the callback would lose the update.
            status: MessageStatus::parse(
                &text("MessageStatus").ok_or_else(|| ParseError::missing("MessageStatus"))?,
            ),
            error_code: parse::parse_optional(&params, "ErrorCode"),
            error_message: text("ErrorMessage"),
            from: address("From"),
            to: address("To"),
            messaging_service_sid: parse::parse_optional(&params, "MessagingServiceSid"),
            raw_dlr_done_date: text("RawDlrDoneDate"),
            channel_prefix: text("ChannelPrefix"),
            channel_install_sid: parse::parse_optional(&params, "ChannelInstallSid"),
            channel_to_address: address("ChannelToAddress"),
            channel_status_message: text("ChannelStatusMessage"),
            channel_status_code: text("ChannelStatusCode"),
            event_type: text("EventType"),
            structured_message: parse::parse_optional(&params, "StructuredMessage"),
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
    fn status_callback_keeps_unknown_status_rejects_missing() {
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
