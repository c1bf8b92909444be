//! Detection of reshaped forms: captured requests whose signed bytes were split into other names and values.
//!
//! Twilio signs the URL followed by names and values without separators. A captured signature therefore matches every
//! form whose sorted names and values concatenate to the same bytes: the end of one value may become the next name. The
//! bytes do not show where Twilio split them, but they contain `MessageSid` directly followed by the SID of the
//! message. A form is rejected if its signed bytes contain that pair for another message than the form's own.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::form::{FormParams, SortOrder};
use crate::message::ConversationEvent;

/// Parameters whose name ends in `MessageSid` and whose value may be another message than the webhook's own.
///
/// - `OriginalRepliedMessageSid`: the quoted message, or the one with the tapped button.
/// - `ChannelMessageSid`: the channel's message in an `onDeliveryUpdated` of Twilio Conversations.
/// - `SmsMessageSid`: a copy of the message's own SID in every captured request. Tools that compose requests may set
///   `MessageSid` alone.
// The exemptions do not help an attacker. To turn the original `MessageSid` pair into an exempt one, the bytes before
// it would have to spell the rest of the exempt name. Those bytes are the end of a value that Twilio writes, not the
// user.
const EXEMPT_PARAMS: [&str; 3] = [
    "OriginalRepliedMessageSid",
    "ChannelMessageSid",
    "SmsMessageSid",
];

const MESSAGE_SID: &str = "MessageSid";
/// Length of a SID: two letters and 32 hexadecimal digits.
const SID_LEN: usize = 34;

// Searched in every verified request, so the searchers are built once.
static MESSAGE_SID_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MESSAGE_SID));
static EVENT_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("EventTypeon"));

/// The signed bytes of a verified request, and the form that was read from them.
pub(super) struct SignedText<'a> {
    pub(super) form: &'a FormParams,
    /// Order in which `params` are sorted, so that offsets in them can be mapped to pairs.
    pub(super) order: SortOrder,
    pub(super) target: &'a str,
    /// Sorted names and values; empty if the parameters were not posted.
    pub(super) params: &'a [u8],
}

impl SignedText<'_> {
    /// Returns whether the signed bytes also read as another message, or as another kind of webhook, than the form.
    pub(super) fn is_reshaped(&self) -> bool {
        let own_sid = self.form.get(MESSAGE_SID).map(str::as_bytes);
        // The target is signed with its separators. They become part of names and values if an attacker turns a
        // captured GET into a POST. The parameters then start with `?`, or part of the query stays in the URL.
        let query = self.target.find('?').map(|at| &self.target[at..]);
        let has_separators = query.is_some() || self.params.starts_with(b"?");
        let names_other_message = |text, is_exempt: &dyn Fn(usize, &[u8]) -> bool| {
            MESSAGE_SID_FINDER.find_iter(text).any(|at| {
                let rest = &text[at + MESSAGE_SID.len()..];
                // Without separators in the signed bytes, `MessageSid=SM…` is harmless text of a user.
                let value = match rest {
                    [b'=', value @ ..] if has_separators => value,
                    value => value,
                };
                let Some(sid) = leading_sid(value) else {
                    return false;
                };
                if Some(sid) == own_sid {
                    return self.hides_status(&value[SID_LEN..]);
                }
                !is_exempt(at, sid)
            })
        };
        let query = query.unwrap_or_default().as_bytes();
        names_other_message(self.params, &|at, sid| self.is_exempt_param(at, sid))
            || names_other_message(query, &|at, sid| is_exempt_in_query(query, at, sid))
            || self.is_other_kind(query)
    }

    /// Returns whether `MessageSid` at an offset of the signed parameters ends the name of an exempt parameter, whose
    /// whole value is `sid`.
    #[cold]
    fn is_exempt_param(&self, at: usize, sid: &[u8]) -> bool {
        let mut start = 0;
        for (name, value) in self.form.signed_pairs(self.order) {
            // Only a name that ends exactly here: within a value, an exempt name would be text of a user.
            if start + name.len() == at + MESSAGE_SID.len() {
                return EXEMPT_PARAMS.contains(&name) && value.as_bytes() == sid;
            }
            start += name.len() + value.len();
        }
        false
    }

    /// Returns whether a status callback lost its `MessageStatus`, which directly follows the SID in the signed bytes.
    /// The form would then be read as a message from the bot's own sender.
    fn hides_status(&self, after_sid: &[u8]) -> bool {
        after_sid.starts_with(b"MessageStatus") && self.form.get("MessageStatus").is_none()
    }

    /// Returns whether a message was reshaped into an event of Twilio Conversations, or an event into a message.
    fn is_other_kind(&self, query: &[u8]) -> bool {
        if ConversationEvent::is_one(self.form) {
            // SIDs of Conversations messages are `IM…`, so this SID is that of a message.
            let own_sid = self.form.get(MESSAGE_SID).unwrap_or_default();
            return own_sid.starts_with("SM") || own_sid.starts_with("MM");
        }
        // Not an event, although the signed bytes contain an event's type: `EventType`, `on` and an upper-case letter.
        [self.params, query].into_iter().any(|text| {
            EVENT_FINDER.find_iter(text).any(|at| {
                let event = text.get(at + EVENT_FINDER.needle().len());
                event.is_some_and(u8::is_ascii_uppercase)
            })
        })
    }
}

/// Returns whether the parameter at an offset of a query is an exempt one, and `sid` is its whole value.
#[cold]
fn is_exempt_in_query(query: &[u8], at: usize, sid: &[u8]) -> bool {
    let start = query[..at]
        .iter()
        .rposition(|byte| matches!(byte, b'?' | b'&'));
    let start = start.map_or(0, |at| at + 1);
    let end = query[at..].iter().position(|byte| *byte == b'&');
    let param = &query[start..end.map_or(query.len(), |end| at + end)];
    EXEMPT_PARAMS.iter().any(|name| {
        let value = param.strip_prefix(name.as_bytes());
        value.and_then(|value| value.strip_prefix(b"=")) == Some(sid)
    })
}

/// Returns the SID at the beginning of a text. Any two letters count, since events have SIDs of other kinds.
fn leading_sid(text: &[u8]) -> Option<&[u8]> {
    let sid = text.get(..SID_LEN)?;
    let (kind, digits) = sid.split_at(2);
    let is_sid =
        kind.iter().all(u8::is_ascii_uppercase) && digits.iter().all(u8::is_ascii_hexdigit);
    is_sid.then_some(sid)
}
