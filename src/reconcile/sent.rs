//! What Twilio's list says was sent: by whose answer, and whether anybody was answered at all.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::address::Address;
use crate::form::Form;
use crate::message::{InboundMessage, MessageStatus};
use crate::sid::{MessageSid, MessagingServiceSid};
use crate::store::MessageRow;
use crate::twilio::{CLOCK_SKEW, Message};
use crate::twiml::spoken;

/// What was sent in reply to webhooks, by user and text, oldest first.
pub(super) struct Replies(HashMap<(String, String), Vec<(Timestamp, MessageSid)>>);

/// A message of an answer by TwiML.
pub(super) struct Said {
    pub(super) to: Address,
    pub(super) text: String,
    /// Whether Twilio has it.
    pub(super) found: bool,
}

impl Replies {
    /// `since` stands for the time of one that has none.
    pub(super) fn of(listed: &[Message], since: Timestamp) -> Self {
        let mut sent: HashMap<_, Vec<_>> = HashMap::new();
        let replies = listed
            .iter()
            .filter(|message| message.direction.as_deref() == Some("outbound-reply"));
        for reply in replies {
            let to = reply.to.as_ref().map_or("", Address::as_str).to_owned();
            let text = compared(reply.body.as_ref().map_or("", |body| body.0.as_str()));
            let at = reply.made_at().unwrap_or(since);
            sent.entry((to, text)).or_default().push((at, reply.sid));
        }
        for found in sent.values_mut() {
            found.sort_unstable();
        }
        Self(sent)
    }

    /// What a message was answered with, each text with the earliest that may be its own, which nobody else's is then.
    /// `None` where the text has expired.
    pub(super) fn take(&mut self, row: &MessageRow) -> Option<Vec<Said>> {
        let params = row.params.as_ref()?;
        let Some(answer) = &row.answer else {
            return Some(Vec::new());
        };
        let params = Form::parse(params.0.as_bytes(), usize::MAX).unwrap_or_default();
        let author = params.get("From").unwrap_or_default();
        let earliest = row
            .received_at
            .checked_sub(CLOCK_SKEW)
            .unwrap_or(row.received_at);
        let said = spoken(&answer.0).into_iter().map(|said| {
            let to = said.to.unwrap_or_else(|| author.to_owned());
            let sent = self
                .0
                .entry((to.clone(), compared(&said.text)))
                .or_default();
            let own = sent.iter().position(|(at, _)| *at >= earliest);
            if let Some(own) = own {
                sent.remove(own);
            }
            Said {
                to: to.into(),
                text: said.text,
                found: own.is_some(),
            }
        });
        Some(said.collect())
    }

    /// Those that no answer took.
    pub(super) fn left(self) -> impl Iterator<Item = MessageSid> {
        self.0.into_values().flatten().map(|(_, sid)| sid)
    }
}

/// A text as two of them are compared: Twilio cuts white space, and writes line ends its own way.
fn compared(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn is_inbound(message: &Message) -> bool {
    message.direction.as_deref() == Some("inbound")
}

/// Whether Twilio has sent it, or is about to.
pub(super) fn went_out(message: &Message) -> bool {
    let sent = |direction: &str| direction.starts_with("outbound");
    message.direction.as_deref().is_some_and(sent)
        && !matches!(
            message.status,
            MessageStatus::Failed | MessageStatus::Undelivered | MessageStatus::Canceled
        )
}

/// Who was written to last, and where in the list's order, by sender and by service.
#[derive(Default)]
pub(super) struct LastSent(HashMap<(String, String), usize>);

impl LastSent {
    /// Of what is strange to the journal. Not what replied to a message that it knows, whatever its text has become on the
    /// way.
    pub(super) fn of(
        listed: &[(Timestamp, &Message)],
        known: &HashSet<MessageSid>,
        strange: &HashSet<MessageSid>,
    ) -> Self {
        let mut last = Self::default();
        let mut asked_by_known = HashMap::new();
        for (place, (_, message)) in listed.iter().enumerate() {
            let (from, to) = (message.from.as_ref(), message.to.as_ref());
            if is_inbound(message) {
                asked_by_known.insert((from, to), known.contains(&message.sid));
                continue;
            }
            let replies = message.direction.as_deref() == Some("outbound-reply");
            let is_ours = replies && asked_by_known.get(&(to, from)) == Some(&true);
            if strange.contains(&message.sid) && !is_ours {
                last.add(message, place);
            }
        }
        last
    }

    fn add(&mut self, message: &Message, place: usize) {
        let Some(user) = &message.to else { return };
        let service = message.messaging_service_sid.as_ref();
        let from = message.from.as_ref().map(Address::as_str);
        let service = service.map(MessagingServiceSid::as_str);
        for us in from.into_iter().chain(service) {
            let key = (user.as_str().to_owned(), us.to_owned());
            self.0.insert(key, place);
        }
    }

    /// Whether anything went to its author after a message at that place.
    pub(super) fn is_after(&self, message: &InboundMessage, place: usize) -> bool {
        let service = message.messaging_service_sid.as_ref();
        let mut ours =
            std::iter::once(message.to.as_str()).chain(service.map(MessagingServiceSid::as_str));
        ours.any(|us| {
            let key = (message.from.as_str().to_owned(), us.to_owned());
            self.0.get(&key).is_some_and(|last| *last > place)
        })
    }
}
