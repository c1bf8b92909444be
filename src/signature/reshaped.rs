//! Recognising a captured request whose signed bytes were cut into other names and values.
//!
//! Twilio signs the URL followed by names and values without separators. A captured signature therefore fits every form
//! whose sorted names and values join to the same bytes: the end of one value may become the next name. Nothing in the
//! bytes says where Twilio cut them, but the SID of the message is in them, behind its name. A form is refused when that
//! pair stands in its signed bytes for another message than the form's own.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::form::{Form, SortOrder};
use crate::message::ConversationEvent;

/// Parameters that end in `MessageSid` and may name another message than the webhook's own.
///
/// `OriginalRepliedMessageSid`: the quoted message, or the one with the tapped button. `ChannelMessageSid`: the channel's
/// message in an `onDeliveryUpdated` of Twilio Conversations. `SmsMessageSid`: a copy of the own SID in every capture, but
/// tools that compose requests may set `MessageSid` alone. None is a way in: the bytes before the own `MessageSid` pair would
/// have to spell the rest of such a name, and they are the end of a value that Twilio, not the user, writes.
const OTHER_MESSAGES: [&str; 3] = [
    "OriginalRepliedMessageSid",
    "ChannelMessageSid",
    "SmsMessageSid",
];

const NAME: &str = "MessageSid";
/// Two letters and 32 hexadecimal digits.
const SID_LEN: usize = 34;

static NAMES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
static EVENTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("EventTypeon"));

/// The bytes behind a verified signature, and the form that was read from them.
pub(super) struct SignedText<'a> {
    pub(super) form: &'a Form,
    pub(super) order: SortOrder,
    pub(super) target: &'a str,
    /// The sorted names and values; empty unless they were posted.
    pub(super) params: &'a [u8],
}

impl SignedText<'_> {
    /// Returns whether the signed bytes also read as another message, or as another kind of webhook, than the form.
    pub(super) fn is_reshaped(&self) -> bool {
        let own = self.form.get(NAME).map(str::as_bytes);
        // The target is signed with its separators, which end up inside names and values when a GET becomes a POST.
        let query = self.target.find('?').map(|at| &self.target[at..]);
        let has_separators = query.is_some() || self.params.starts_with(b"?");
        let others = |text, is_exempt: &dyn Fn(usize, &[u8]) -> bool| {
            NAMES.find_iter(text).any(|at| {
                let rest = &text[at + NAME.len()..];
                let value = match rest {
                    [b'=', value @ ..] if has_separators => value,
                    value => value,
                };
                let Some(sid) = sid(value) else {
                    return false;
                };
                if Some(sid) == own {
                    return self.hides_status(&value[SID_LEN..]);
                }
                !is_exempt(at, sid)
            })
        };
        let query = query.unwrap_or_default().as_bytes();
        others(self.params, &|at, sid| self.is_other_param(at, sid))
            || others(query, &|at, sid| is_other_in_query(query, at, sid))
            || self.is_other_kind(query)
    }

    /// Returns whether the pair at an offset of the signed parameters names another message.
    #[cold]
    fn is_other_param(&self, at: usize, sid: &[u8]) -> bool {
        let mut start = 0;
        for (name, value) in self.form.signed_pairs(self.order) {
            if start + name.len() == at + NAME.len() {
                return OTHER_MESSAGES.contains(&name) && value.as_bytes() == sid;
            }
            start += name.len() + value.len();
        }
        false
    }

    /// Whether the status that follows the SID of a status callback is no longer a parameter: the form would be read as a
    /// message from the bot's own number.
    fn hides_status(&self, after_sid: &[u8]) -> bool {
        after_sid.starts_with(b"MessageStatus") && self.form.get("MessageStatus").is_none()
    }

    /// Returns whether an event of Twilio Conversations is read as a message, or a message as such an event.
    fn is_other_kind(&self, query: &[u8]) -> bool {
        if ConversationEvent::is_one(self.form) {
            // Messages of Conversations are `IM…`.
            let own = self.form.get(NAME).unwrap_or_default();
            return own.starts_with("SM") || own.starts_with("MM");
        }
        [self.params, query].into_iter().any(|text| {
            EVENTS.find_iter(text).any(|at| {
                let event = text.get(at + EVENTS.needle().len());
                event.is_some_and(u8::is_ascii_uppercase)
            })
        })
    }
}

/// Returns whether the whole parameter at an offset of a query names another message.
#[cold]
fn is_other_in_query(query: &[u8], at: usize, sid: &[u8]) -> bool {
    let start = query[..at]
        .iter()
        .rposition(|byte| matches!(byte, b'?' | b'&'));
    let start = start.map_or(0, |at| at + 1);
    let end = query[at..].iter().position(|byte| *byte == b'&');
    let param = &query[start..end.map_or(query.len(), |end| at + end)];
    OTHER_MESSAGES.iter().any(|name| {
        let value = param.strip_prefix(name.as_bytes());
        value.and_then(|value| value.strip_prefix(b"=")) == Some(sid)
    })
}

/// The SID that a text begins with.
fn sid(text: &[u8]) -> Option<&[u8]> {
    let sid = text.get(..SID_LEN)?;
    let (kind, digits) = sid.split_at(2);
    let is_sid =
        kind.iter().all(u8::is_ascii_uppercase) && digits.iter().all(u8::is_ascii_hexdigit);
    is_sid.then_some(sid)
}
