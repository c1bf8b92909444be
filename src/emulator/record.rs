//! What the emulator remembers and shows: messages, the HTTP calls around them, and the debugger's entries.
//!
//! None of it has a `Debug`: it is full of texts and numbers.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::error_code::ErrorCode;
use crate::message::MessageStatus;

/// A message as a phone shows it, and as REST lists it.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) sid: String,
    pub(super) user: String,
    /// Whom the user wrote to, or got it from.
    pub(super) sender: String,
    pub(super) direction: Direction,
    pub(super) by: By,
    pub(super) body: String,
    pub(super) media: Vec<MediaRecord>,
    pub(super) location: Option<Location>,
    pub(super) button: Option<Button>,
    pub(super) buttons: Vec<Button>,
    pub(super) status: MessageStatus,
    pub(super) error_code: Option<ErrorCode>,
    pub(super) service: Option<String>,
    /// Where it is reported, by whoever sent it.
    pub(super) status_callback: Option<String>,
    pub(super) at: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) sent: Option<Timestamp>,
    pub(super) send_at: Option<Timestamp>,
    pub(super) is_unread: bool,
    /// The parameters of the webhook that it came by.
    pub(super) params: Vec<(String, String)>,
    pub(super) profile_name: Option<String>,
    /// Whether an answer to it was executed: a repeat of its webhook is not answered on the phone again.
    pub(super) is_answered: bool,
    /// The message that its TwiML answers.
    pub(super) in_reply_to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The user wrote it.
    In,
    /// It was sent by REST.
    Api,
    /// It answers a webhook, or is Twilio's own.
    Reply,
}

impl Direction {
    pub(super) fn is_in(self) -> bool {
        self == Self::In
    }

    /// As REST names it.
    pub(super) fn rest(self) -> &'static str {
        match self {
            Self::In => "inbound",
            Self::Api => "outbound-api",
            Self::Reply => "outbound-reply",
        }
    }
}

/// Whose words they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    User,
    Bot,
    /// The confirmation of STOP, START and HELP on SMS.
    Twilio,
}

/// A file of a message.
#[derive(Clone)]
pub(super) struct MediaRecord {
    /// `ME…`.
    pub(super) sid: String,
    /// As the other side was told.
    pub(super) url: String,
    pub(super) content_type: String,
    pub(super) filename: Option<String>,
    /// Whether its bytes are here.
    pub(super) is_here: bool,
    pub(super) at: Timestamp,
}

/// A place.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Location {
    /// Degrees north.
    pub(super) latitude: f64,
    /// Degrees east.
    pub(super) longitude: f64,
    /// Street and town.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
}

/// A quick reply.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Button {
    /// What is written on it.
    pub(super) text: String,
    /// What the bot gets beside that.
    #[serde(default)]
    pub(super) payload: String,
}

/// A message as the control interface shows it.
#[derive(Clone, Serialize)]
pub(super) struct Shown {
    sid: String,
    sender: String,
    direction: &'static str,
    body: String,
    media: Vec<ShownMedia>,
    status: String,
    error_code: Option<u32>,
    #[serde(serialize_with = "in_milliseconds")]
    at: Timestamp,
    location: Option<Location>,
    button: Option<Button>,
    buttons: Vec<Button>,
    by: By,
}

#[derive(Clone, Serialize)]
pub(super) struct ShownMedia {
    url: String,
    content_type: String,
    /// Where this origin has it, without a password.
    src: Option<String>,
    filename: Option<String>,
}

impl Record {
    /// A text of a user's.
    pub(super) fn inbound(
        sid: String,
        user: String,
        sender: String,
        body: String,
        at: Timestamp,
    ) -> Self {
        Self {
            sid,
            user,
            sender,
            direction: Direction::In,
            by: By::User,
            body,
            media: Vec::new(),
            location: None,
            button: None,
            buttons: Vec::new(),
            status: MessageStatus::Received,
            error_code: None,
            service: None,
            status_callback: None,
            at,
            updated: at,
            sent: Some(at),
            send_at: None,
            is_unread: false,
            params: Vec::new(),
            profile_name: None,
            is_answered: false,
            in_reply_to: None,
        }
    }

    pub(super) fn show(&self) -> Shown {
        Shown {
            sid: self.sid.clone(),
            sender: self.sender.clone(),
            direction: if self.direction.is_in() { "in" } else { "out" },
            body: self.body.clone(),
            media: self.show_media(),
            status: self.status.as_str().to_owned(),
            error_code: self.error_code.map(|code| code.0),
            at: self.at,
            location: self.location.clone(),
            button: self.button.clone(),
            buttons: self.buttons.clone(),
            by: self.by,
        }
    }

    pub(super) fn show_media(&self) -> Vec<ShownMedia> {
        let show = |media: &MediaRecord| ShownMedia {
            url: media.url.clone(),
            content_type: media.content_type.clone(),
            src: media
                .is_here
                .then(|| format!("/_emulator/media/{}", media.sid)),
            filename: media.filename.clone(),
        };
        self.media.iter().map(show).collect()
    }

    /// Whether the phone has it.
    pub(super) fn is_on_the_phone(&self) -> bool {
        !matches!(
            self.status,
            MessageStatus::Failed
                | MessageStatus::Undelivered
                | MessageStatus::Canceled
                | MessageStatus::Scheduled
        )
    }
}

/// One HTTP call, made or received.
#[derive(Clone, Serialize)]
pub(super) struct Exchange {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) message_sid: Option<String>,
    pub(super) user: Option<String>,
    #[serde(serialize_with = "in_milliseconds")]
    pub(super) at: Timestamp,
    pub(super) request: ExchangeRequest,
    pub(super) response: Option<ExchangeResponse>,
    pub(super) ms: u64,
    pub(super) error_code: Option<u32>,
    /// The decoded parameters.
    pub(super) params: Vec<(String, String)>,
    pub(super) signed: Option<Signed>,
    pub(super) attempt: Option<&'static str>,
}

impl Exchange {
    /// A call of which no more is known than that it was made.
    pub(super) fn new(kind: Kind, at: Timestamp, request: ExchangeRequest) -> Self {
        Self {
            id: String::new(),
            kind,
            message_sid: None,
            user: None,
            at,
            request,
            response: None,
            ms: 0,
            error_code: None,
            params: Vec::new(),
            signed: None,
            attempt: None,
        }
    }

    /// About what it takes to remember it.
    pub(super) fn size(&self) -> usize {
        let params = self
            .params
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let answer = self.response.as_ref().map_or(0, |answer| answer.body.len());
        let signed = self.signed.as_ref().map_or(0, |signed| signed.string.len());
        1024 + self.request.body.len() + answer + signed + params.sum::<usize>()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Webhook,
    Status,
    Rest,
    Media,
}

#[derive(Clone, Serialize)]
pub(super) struct ExchangeRequest {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl ExchangeRequest {
    pub(super) fn get(url: String) -> Self {
        Self {
            method: "GET".to_owned(),
            url,
            headers: Vec::new(),
            body: String::new(),
        }
    }
}

#[derive(Clone, Serialize)]
pub(super) struct ExchangeResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

/// What was signed, and what the server made of it as far as its answer tells.
#[derive(Clone, Serialize)]
pub(super) struct Signed {
    pub(super) string: String,
    pub(super) verdict: String,
}

/// An entry of Twilio's debugger.
#[derive(Clone, Serialize)]
pub(super) struct Entry {
    pub(super) code: u32,
    pub(super) level: &'static str,
    pub(super) message: String,
    pub(super) message_sid: Option<String>,
    pub(super) url: Option<String>,
    #[serde(serialize_with = "in_milliseconds")]
    pub(super) at: Timestamp,
    pub(super) more_info: String,
}

impl Entry {
    pub(super) fn new(code: ErrorCode, detail: Option<&str>, at: Timestamp) -> Self {
        let meaning = code.meaning().unwrap_or("an error of Twilio's");
        let message = match detail {
            Some(detail) => format!("{meaning}: {detail}"),
            None => meaning.to_owned(),
        };
        Self {
            code: code.0,
            level: level(code),
            message,
            message_sid: None,
            url: None,
            at,
            more_info: code.more_info(),
        }
    }
}

/// RFC 3339 with as many digits each time, so that times compare as texts.
pub(super) fn told(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn in_milliseconds<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&told(*at))
}

/// Whole milliseconds.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Source: the levels of the error dictionary.
fn level(code: ErrorCode) -> &'static str {
    match code.0 {
        12200 | 14101..=14106 | 14108..=14111 | 63037 => "warning",
        _ => "error",
    }
}
