//! Evaluation of sent messages in Twilio's list: which reply they belong to, and which users were written to last.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::address::Address;
use crate::form::FormParams;
use crate::message::{InboundMessage, MessageStatus};
use crate::sid::{MessageSid, MessagingServiceSid};
use crate::store::MessageRow;
use crate::twilio::{CLOCK_SKEW, Message};
use crate::twiml::interpreter::rendered_messages;

/// Listed messages that Twilio sent for TwiML, by recipient and text, oldest first.
pub(super) struct Replies(HashMap<(String, String), Vec<(Timestamp, MessageSid)>>);

/// A message of a TwiML reply.
pub(super) struct ReplyMatch {
    pub(super) to: Address,
    pub(super) text: String,
    /// True if Twilio's list has the message.
    pub(super) is_listed: bool,
}

impl Replies {
    /// Collects the replies of a list. `since` replaces the time of a message without one.
    pub(super) fn new(listed: &[Message], since: Timestamp) -> Self {
        // Twilio lists TwiML replies as `outbound-reply`, and REST messages as `outbound-api`.
        let mut sent: HashMap<_, Vec<_>> = HashMap::new();
        let replies = listed
            .iter()
            .filter(|message| message.direction.as_deref() == Some("outbound-reply"));
        for reply in replies {
            let to = reply.to.as_ref().map_or("", Address::as_str).to_owned();
            let text = normalize(reply.body.as_ref().map_or("", |body| body.0.as_str()));
            let at = reply.created_at().unwrap_or(since);
            sent.entry((to, text)).or_default().push((at, reply.sid));
        }
        for same_text in sent.values_mut() {
            same_text.sort_unstable();
        }
        Self(sent)
    }

    /// Matches the TwiML messages of a row, and removes each match so that no other row gets it.
    ///
    /// Each message takes the earliest sent one with its recipient and text that is not older than the row. Returns
    /// `None` if the row's content has expired.
    pub(super) fn match_row(&mut self, row: &MessageRow) -> Option<Vec<ReplyMatch>> {
        let params = row.params.as_ref()?;
        let Some(response) = &row.response else {
            return Some(Vec::new());
        };
        let params = FormParams::parse(params.0.as_bytes(), usize::MAX).unwrap_or_default();
        let author = params.get("From").unwrap_or_default();
        // `received_at` is local time, and the list has Twilio's.
        let earliest = row
            .received_at
            .checked_sub(CLOCK_SKEW)
            .unwrap_or(row.received_at);
        let matches = rendered_messages(&response.0).into_iter().map(|message| {
            let to = message.to.unwrap_or_else(|| author.to_owned());
            let sent = self
                .0
                .entry((to.clone(), normalize(&message.body)))
                .or_default();
            let index = sent.iter().position(|(at, _)| *at >= earliest);
            if let Some(index) = index {
                sent.remove(index);
            }
            ReplyMatch {
                to: to.into(),
                text: message.body,
                is_listed: index.is_some(),
            }
        });
        Some(matches.collect())
    }

    /// Returns the messages that no row matched.
    pub(super) fn unmatched(self) -> impl Iterator<Item = MessageSid> {
        self.0.into_values().flatten().map(|(_, sid)| sid)
    }
}

/// Normalizes a text for comparison: Twilio trims white space and changes line ends.
fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn is_inbound(message: &Message) -> bool {
    message.direction.as_deref() == Some("inbound")
}

/// Returns true for an outbound message that Twilio has sent or is about to send.
pub(super) fn is_sent_outbound(message: &Message) -> bool {
    let is_outbound = |direction: &str| direction.starts_with("outbound");
    message.direction.as_deref().is_some_and(is_outbound)
        && !matches!(
            message.status,
            MessageStatus::Failed | MessageStatus::Undelivered | MessageStatus::Canceled
        )
}

/// Index of the last unrecognized message to each user, by the user and the sender or Messaging Service.
///
/// Indices, not times: Twilio's times are whole seconds, and do not order messages within one.
#[derive(Default)]
pub(super) struct LastOutbound(HashMap<(String, String), usize>);

impl LastOutbound {
    /// Evaluates the `unrecognized` messages of a list that is in chronological order.
    pub(super) fn new(
        listed: &[(Timestamp, &Message)],
        known: &HashSet<MessageSid>,
        unrecognized: &HashSet<MessageSid>,
    ) -> Self {
        let mut last = Self::default();
        let mut last_inbound_is_known = HashMap::new();
        for (index, (_, message)) in listed.iter().enumerate() {
            let (from, to) = (message.from.as_ref(), message.to.as_ref());
            if is_inbound(message) {
                last_inbound_is_known.insert((from, to), known.contains(&message.sid));
                continue;
            }
            // A TwiML reply to a known message is this server's, even if Twilio changed its text so that
            // `Replies::match_row` did not match it.
            let is_reply = message.direction.as_deref() == Some("outbound-reply");
            let is_ours = is_reply && last_inbound_is_known.get(&(to, from)) == Some(&true);
            if unrecognized.contains(&message.sid) && !is_ours {
                last.add(message, index);
            }
        }
        last
    }

    fn add(&mut self, message: &Message, index: usize) {
        let Some(user) = &message.to else { return };
        let service = message.messaging_service_sid.as_ref();
        let from = message.from.as_ref().map(Address::as_str);
        let service = service.map(MessagingServiceSid::as_str);
        for sender in from.into_iter().chain(service) {
            let key = (user.as_str().to_owned(), sender.to_owned());
            self.0.insert(key, index);
        }
    }

    /// Returns true if an unrecognized message went to the author of the message at `index` after it.
    pub(super) fn is_after(&self, message: &InboundMessage, index: usize) -> bool {
        let service = message.messaging_service_sid.as_ref();
        let mut senders =
            std::iter::once(message.to.as_str()).chain(service.map(MessagingServiceSid::as_str));
        senders.any(|sender| {
            let key = (message.from.as_str().to_owned(), sender.to_owned());
            self.0.get(&key).is_some_and(|last| *last > index)
        })
    }
}
