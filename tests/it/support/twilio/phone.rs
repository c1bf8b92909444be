//! Messages at Twilio, and those that a user's phone shows.

use replyhook::{Clock, FormParams, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::State;

/// Sender of every Messaging Service.
const SERVICE_SENDER: &str = "whatsapp:+15550002222";
/// Maximum number of characters of a text (errors 14103 and 21617).
const MAX_CHARACTERS: usize = 1600;

/// Message on a user's phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneMessage {
    /// Text, or SID and variables of a template: `HX… {"1":"Ana"}`.
    pub body: String,
    pub media: Vec<String>,
    pub sid: String,
    pub via: SentVia,
    /// `MessageSid` of the webhook whose response contained it. `None` via the REST API.
    pub in_reply_to: Option<String>,
    pub from: String,
    /// Rich content: its type, and the fields with their variables filled in.
    pub content: Option<Value>,
}

/// Path by which a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentVia {
    Twiml,
    Rest,
}

/// Message as Twilio stores it.
pub(super) struct Message {
    pub sid: String,
    pub account: String,
    pub direction: Direction,
    pub status: String,
    pub from: String,
    pub to: String,
    pub body: String,
    pub media: Vec<String>,
    pub service: Option<String>,
    pub status_callback: Option<String>,
    pub error_code: Option<u32>,
    pub created: Timestamp,
    pub content: Option<Value>,
}

pub(super) enum Direction {
    Inbound,
    /// TwiML reply to the message with this SID.
    Reply(String),
    Api {
        /// True if a Messaging Service chooses the sender after the REST response.
        chosen_later: bool,
    },
}

/// Content of one `<Message>`.
#[derive(Default)]
pub(super) struct TwimlMessage {
    pub to: Option<String>,
    pub from: Option<String>,
    pub status_callback: Option<String>,
    pub body: String,
    pub media: Vec<String>,
}

impl Message {
    /// Returns the recipient, and the message on the phone. `None` for an inbound message.
    pub(super) fn shown(&self) -> Option<(&str, PhoneMessage)> {
        let (via, in_reply_to) = match &self.direction {
            Direction::Inbound => return None,
            Direction::Reply(inbound) => (SentVia::Twiml, Some(inbound.clone())),
            Direction::Api { .. } => (SentVia::Rest, None),
        };
        let shown = PhoneMessage {
            body: self.body.clone(),
            media: self.media.clone(),
            sid: self.sid.clone(),
            via,
            in_reply_to,
            from: self.from.clone(),
            content: self.content.clone(),
        };
        Some((&self.to, shown))
    }

    /// Day of the message in UTC, by which lists are filtered.
    pub(super) fn day(&self) -> String {
        self.created.strftime("%Y-%m-%d").to_string()
    }

    /// JSON of the REST API. `fresh` is true in the response that creates the message.
    pub(super) fn json(&self, fresh: bool) -> Value {
        let direction = match self.direction {
            Direction::Inbound => "inbound",
            Direction::Reply(_) => "outbound-reply",
            Direction::Api { .. } => "outbound-api",
        };
        let unknown_sender =
            fresh && matches!(self.direction, Direction::Api { chosen_later: true });
        let date = self
            .created
            .strftime("%a, %d %b %Y %H:%M:%S +0000")
            .to_string();
        let path = format!(
            "/2010-04-01/Accounts/{}/Messages/{}",
            self.account, self.sid
        );
        json!({
            "account_sid": self.account,
            "api_version": "2010-04-01",
            "body": self.body,
            "date_created": date,
            "date_sent": (!fresh).then_some(&date),
            "date_updated": date,
            "direction": direction,
            "error_code": self.error_code,
            "error_message": null,
            "from": (!unknown_sender).then_some(&self.from),
            "messaging_service_sid": self.service,
            "num_media": self.media.len().to_string(),
            "num_segments": if unknown_sender { "0" } else { "1" },
            "price": null,
            "price_unit": "USD",
            "sid": self.sid,
            "status": self.status,
            "subresource_uris": {
                "media": format!("{path}/Media.json"),
                "feedback": format!("{path}/Feedback.json"),
            },
            "to": self.to,
            "uri": format!("{path}.json"),
        })
    }
}

impl State {
    /// Stores a user's message, unless it is a redelivery.
    pub(super) fn receive(&mut self, form: &FormParams) {
        let value = |name| form.get(name).unwrap_or_default().to_owned();
        let sid = value("MessageSid");
        if self.messages.iter().any(|message| message.sid == sid) {
            return;
        }
        let media = (0..).map_while(|n| form.get(&format!("MediaUrl{n}")).map(str::to_owned));
        self.messages.push(Message {
            sid,
            account: value("AccountSid"),
            direction: Direction::Inbound,
            status: "received".to_owned(),
            from: value("From"),
            to: value("To"),
            body: value("Body"),
            media: media.collect(),
            service: form.get("MessagingServiceSid").map(str::to_owned),
            status_callback: None,
            error_code: None,
            created: SystemClock.now(),
            content: None,
        });
    }

    /// Accepts a message via the REST API. The phone shows it.
    pub(super) fn accept_message(&mut self, account: &str, form: &FormParams) -> &Message {
        let value = |name| form.get(name).map(str::to_owned);
        let template = || {
            let variables = form.get("ContentVariables").unwrap_or("{}");
            Some(format!("{} {variables}", form.get("ContentSid")?))
        };
        let chosen_later = form.get("From").is_none();
        let content = self.shown_content(form);
        let shown_body = content
            .as_ref()
            .and_then(|content| content["fields"]["body"].as_str());
        let shown_body = shown_body.map(str::to_owned);
        let media: Vec<_> = form
            .iter()
            .filter(|(name, _)| *name == "MediaUrl")
            .map(|(_, url)| url.to_owned())
            .collect();
        let message = Message {
            sid: self.sid(&media),
            account: account.to_owned(),
            direction: Direction::Api { chosen_later },
            status: if chosen_later { "accepted" } else { "queued" }.to_owned(),
            from: value("From").unwrap_or_else(|| SERVICE_SENDER.to_owned()),
            to: value("To").unwrap_or_default(),
            body: value("Body")
                .or(shown_body)
                .or_else(template)
                .unwrap_or_default(),
            media,
            service: value("MessagingServiceSid"),
            status_callback: value("StatusCallback"),
            error_code: None,
            created: SystemClock.now(),
            content,
        };
        self.messages.push(message);
        &self.messages[self.messages.len() - 1]
    }

    /// Sends a `<Message>` in reply to a webhook. The phone shows it, unless it is empty or too long (error 14103).
    pub(super) fn reply(&mut self, form: &FormParams, twiml: TwimlMessage) {
        let is_empty = twiml.body.is_empty() && twiml.media.is_empty();
        if is_empty || is_too_long(&twiml.body) {
            return;
        }
        let value = |name| form.get(name).unwrap_or_default().to_owned();
        let message = Message {
            sid: self.sid(&twiml.media),
            account: value("AccountSid"),
            direction: Direction::Reply(value("MessageSid")),
            status: "queued".to_owned(),
            from: twiml.from.unwrap_or_else(|| value("To")),
            to: twiml.to.unwrap_or_else(|| value("From")),
            body: twiml.body,
            media: twiml.media,
            service: form.get("MessagingServiceSid").map(str::to_owned),
            status_callback: twiml.status_callback,
            error_code: None,
            created: SystemClock.now(),
            content: None,
        };
        self.messages.push(message);
    }

    /// Returns a new SID, above the small numbers that tests use for users' messages.
    fn sid(&mut self, media: &[String]) -> String {
        let kind = if media.is_empty() { "SM" } else { "MM" };
        format!("{kind}fa{:030x}", self.number())
    }
}

/// Returns true if a text is too long. It is counted in UTF-16 units, which is the stricter interpretation.
pub(super) fn is_too_long(body: &str) -> bool {
    body.encode_utf16().count() > MAX_CHARACTERS
}
