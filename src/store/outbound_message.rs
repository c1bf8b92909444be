//! Messages of the outbox, their states, and the outcomes of their REST calls.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;

use super::conversations::OpenWindow;
use super::redacted_params::RedactedParams;
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::AuthTokenKind;

/// Parameter of a stored message that names its template, in place of `ContentSid`. Twilio never gets it.
pub const TEMPLATE_NAME: &str = "TemplateName";
/// Parameter with the language of such a template.
pub const TEMPLATE_LANGUAGE: &str = "TemplateLanguage";
/// Parameter of a stored message with the SID of its template, in place of `ContentSid`: its approval is checked before it is
/// sent. Twilio never gets it.
pub const TEMPLATE_SID: &str = "TemplateSid";

/// Error codes of a failed send after which a second one may succeed.
///
/// 21611 and 30001: a queue was full, which a call through a Messaging Service learns later. 63017 and 63018: messages were sent too fast. 63053: the template was not ready yet.
pub const PASSING_FAILURES: [u32; 5] = [21611, 30001, 63017, 63018, 63053];
/// Beginning of the reason of a message that Twilio has rejected, so that a call for it was made.
pub const REJECTED: &str = "Twilio rejected it";

/// Message to add to the outbox.
#[derive(Clone)]
pub struct NewOutbound {
    /// Account that sends the message.
    pub account: AccountSid,
    /// Auth token of the REST call, unless the account has its own API credentials.
    pub auth_token: AuthTokenKind,
    /// Sender of the message.
    pub sender: Address,
    /// Recipient of the message.
    pub user: Address,
    /// Messaging Service whose consents apply in addition to the sender's.
    pub service: Option<MessagingServiceSid>,
    /// Parameters of `POST Messages`, without `StatusCallback` unless the bot has set its own.
    pub params: FormParams,
    /// True for a template, which may be sent while the customer service window is closed.
    pub template: bool,
}

/// Message of the outbox, claimed for a REST call or for a lookup.
#[derive(Clone)]
#[non_exhaustive]
pub struct OutboundMessage {
    /// ID of the message.
    pub id: i64,
    /// Time when the message was queued, in whole microseconds. With `id` it forms the [`name`](Self::name).
    pub created_at: Timestamp,
    /// Account that sends the message.
    pub account: AccountSid,
    /// Auth token of the REST call, unless the account has its own API credentials.
    pub auth_token: AuthTokenKind,
    /// Sender of the message.
    pub sender: Address,
    /// Recipient of the message.
    pub user: Address,
    /// Messaging Service whose consents apply in addition to the sender's.
    pub service: Option<MessagingServiceSid>,
    /// Parameters of `POST Messages`.
    pub params: FormParams,
    /// True for a template.
    pub template: bool,
    /// Number of attempts to send the message, including the current one.
    pub attempt: u32,
    /// Error code after which the message is sent a second time without an operator, which happens once.
    pub resent_after: Option<ErrorCode>,
    /// Error code after which the text of a message with refused content is sent, which happens once.
    pub text_after: Option<ErrorCode>,
    /// Number of searches for the message in Twilio's list.
    pub lookups: u32,
    /// Start of the last REST call.
    pub sent_at: Option<Timestamp>,
    /// Customer service window, if it was open at the claim. Without it only a template may be sent.
    pub window: Option<OpenWindow>,
    /// True if an opt-in of the user is recorded.
    pub opted_in: bool,
}

/// Message that Twilio has accepted and holds until its send time. See
/// [`Outbox::scheduled_to_cancel`](super::outbox::Outbox::scheduled_to_cancel).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScheduledMessage {
    /// ID of the message.
    pub id: i64,
    /// Account that sends the message.
    pub account: AccountSid,
    /// Auth token of the REST call, unless the account has its own API credentials.
    pub auth_token: AuthTokenKind,
    /// SID of the message.
    pub sid: MessageSid,
}

/// State of a message in the outbox.
///
/// ```
/// use replyhook::store::OutboundState;
///
/// assert_eq!(OutboundState::Suppressed.as_str(), "suppressed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboundState {
    /// Waiting to be sent.
    Pending,
    /// A REST call is in flight.
    Sending,
    /// A REST call ended without a result, so that Twilio may have accepted the message.
    Unknown,
    /// Twilio's list does not have the message after such a call. An operator decides.
    Held,
    /// Twilio has accepted the message.
    Sent,
    /// Not sent, and not retried unless an operator releases it.
    Failed,
    /// The message is not sent, because the user has opted out.
    Suppressed,
}

impl OutboundState {
    /// Returns the name of the state, as shown to operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Unknown => "unknown",
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Suppressed => "suppressed",
        }
    }
}

/// Message of the outbox as shown to operators.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundRow {
    /// ID of the message.
    pub id: i64,
    /// State of the message.
    pub state: OutboundState,
    /// SID of the message, once Twilio has accepted it.
    pub sid: Option<MessageSid>,
    /// SID of the send before the current one, which failed after Twilio had accepted it.
    pub earlier_sid: Option<MessageSid>,
    /// Error code after which the message was sent a second time without an operator.
    pub resent_after: Option<u32>,
    /// Error code after which the text of a message with refused content is sent without an operator.
    pub text_after: Option<u32>,
    /// Error code after which the last call was repeated, because Twilio had not processed it.
    pub retried_after: Option<u32>,
    /// Last status from Twilio.
    pub status: Option<String>,
    /// Twilio's error code.
    pub error_code: Option<u32>,
    /// Reason for the state.
    pub reason: Option<String>,
    /// Parameters of `POST Messages`, form-encoded. They contain message content.
    pub params: Option<RedactedParams>,
    /// Reason why the message must not be sent any more.
    pub refusal: Option<&'static str>,
}

/// Outcome of a REST call or of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Twilio has accepted the message.
    Sent {
        /// SID of the message.
        sid: MessageSid,
        /// Status that Twilio returned.
        status: MessageStatus,
    },
    /// Twilio has not accepted the message, and the call may be repeated.
    Retry {
        /// Earliest time of the next call.
        not_before: Timestamp,
        /// Twilio's error code, if it has responded.
        code: Option<ErrorCode>,
    },
    /// The content of the message was looked up or made at Twilio, or could not be. No call was made for the message itself, so
    /// this does not count as an attempt, and the message may be claimed again now.
    Prepared,
    /// As [`Retry`](Self::Retry), after an error that allows one other call. It is recorded in
    /// [`OutboundMessage::resent_after`].
    RetryOnce {
        /// Earliest time of the next call.
        not_before: Timestamp,
        /// Twilio's error code.
        code: ErrorCode,
    },
    /// As [`Retry`](Self::Retry), after an error that concerns the content of a message, so that its text is sent. It is
    /// recorded in [`OutboundMessage::text_after`].
    RetryAsText {
        /// Earliest time of the next call.
        not_before: Timestamp,
        /// Twilio's error code.
        code: ErrorCode,
    },
    /// Not sent and not retried: rejected by Twilio, over 24 hours old, or not allowed outside the customer service
    /// window.
    Failed {
        /// Twilio's error code.
        code: Option<ErrorCode>,
        /// Reason, without message content.
        reason: Cow<'static, str>,
    },
    /// The result of the call is unknown, so that Twilio's list must be searched.
    Unknown {
        /// Earliest time of the search.
        lookup_at: Timestamp,
        /// True if the list was searched and does not have the message.
        looked_up: bool,
    },
    /// Twilio's list does not have the message, which waits for an operator.
    Held,
}

impl OutboundMessage {
    /// Returns the name of the message in the URL of its status callback.
    pub fn name(&self) -> String {
        name(self.id, self.created_at.as_microsecond())
    }
}

pub(super) fn name(id: i64, created_at: i64) -> String {
    // An ID alone is not unique: after a database was replaced, the callback for a message of the old one could match a
    // message of the new one.
    format!("{id}-{created_at:x}")
}

/// Returns the ID and the time of creation that a name consists of.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn parse_name(name: &str) -> Option<(i64, i64)> {
    let (id, created_at) = name.split_once('-')?;
    Some((id.parse().ok()?, i64::from_str_radix(created_at, 16).ok()?))
}

impl fmt::Debug for NewOutbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOutbound")
            .field("sender", &self.sender)
            .field("user", &self.user)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundMessage")
            .field("id", &self.id)
            .field("sender", &self.sender)
            .field("user", &self.user)
            .field("attempt", &self.attempt)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
