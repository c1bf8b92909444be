//! Records of messages, HTTP exchanges and debugger entries, and their JSON for the control API.
//!
//! Types with message content do not implement `Debug`, so that texts and phone numbers cannot reach a log.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::content::phone_content::{PhoneContent, PhoneItem, PhoneItemKind};
use super::shared_location::SharedLocation;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::message::MessageStatus;

/// Message in either direction.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) sid: String,
    pub(super) user: String,
    /// Address of the account, in either direction.
    pub(super) sender: String,
    pub(super) direction: Direction,
    pub(super) author: Author,
    pub(super) body: String,
    pub(super) media: Vec<MediaRecord>,
    pub(super) location: Option<SharedLocation>,
    /// Quick reply that the user tapped (inbound).
    pub(super) button: Option<QuickReply>,
    /// Message and type of the tapped item, if the phone has shown it (inbound).
    pub(super) tap: Option<TapOrigin>,
    /// Fields of a Flow's form (inbound).
    pub(super) flow: Option<Map<String, Value>>,
    /// Content of a template (outbound).
    pub(super) content: Option<PhoneContent>,
    pub(super) status: MessageStatus,
    pub(super) error_code: Option<ErrorCode>,
    pub(super) service: Option<String>,
    /// Status callback URL given with the message.
    pub(super) status_callback: Option<String>,
    pub(super) at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) send_at: Option<Timestamp>,
    pub(super) is_unread: bool,
    /// Parameters of the webhook (inbound).
    pub(super) params: Vec<(String, String)>,
    /// Those of them that were given with the message (inbound).
    pub(super) typed_params: BTreeMap<String, String>,
    pub(super) profile_name: Option<String>,
    /// True once a webhook response was executed (inbound). Responses to redeliveries are then not executed.
    pub(super) has_executed_response: bool,
    /// The reason why the handler failed, if the app has reported one (inbound).
    pub(super) failure: Option<String>,
    /// SID of the inbound message, if this is a TwiML reply.
    pub(super) in_reply_to: Option<String>,
    /// Position in the order of arrival, from 1. Assigned by `EmulatorState::add_message`.
    pub(super) position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Inbound message.
    In,
    /// Message sent via the REST API.
    Api,
    /// TwiML reply, or message of Twilio itself.
    Reply,
}

impl Direction {
    pub(super) fn is_in(self) -> bool {
        self == Self::In
    }

    /// Returns the name in the REST API.
    pub(super) fn rest_name(self) -> &'static str {
        match self {
            Self::In => "inbound",
            Self::Api => "outbound-api",
            Self::Reply => "outbound-reply",
        }
    }
}

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Author {
    User,
    Bot,
    /// The confirmation of STOP, START and HELP on SMS.
    Twilio,
}

/// Media file of a message.
#[derive(Clone)]
pub(super) struct MediaRecord {
    /// `ME…`.
    pub(super) sid: String,
    /// URL of the Media resource (inbound), or the URL that the bot gave.
    pub(super) url: String,
    pub(super) content_type: String,
    pub(super) filename: Option<String>,
    /// True if the emulator stored the content. It may have been dropped since, to free space.
    pub(super) has_content: bool,
    pub(super) at: Timestamp,
}

/// Quick reply: a button that a message offers, or that the user tapped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuickReply {
    /// Text on the button.
    pub(super) text: String,
    /// Payload sent to the bot as `ButtonPayload`.
    #[serde(default)]
    pub(super) payload: String,
}

/// Message whose item the user tapped, and the parameters that depend on its content.
#[derive(Clone)]
pub(super) struct TapOrigin {
    pub(super) message_sid: String,
    pub(super) sender: String,
    /// `MessageType` (WhatsApp).
    pub(super) message_type: &'static str,
    /// `ButtonType`.
    pub(super) button_type: &'static str,
}

/// Message in the control API.
#[derive(Clone, Serialize)]
pub(super) struct MessageView {
    sid: String,
    sender: String,
    direction: &'static str,
    body: String,
    media: Vec<MediaView>,
    status: String,
    error_code: Option<u32>,
    #[serde(serialize_with = "serialize_rfc3339")]
    at: Timestamp,
    location: Option<SharedLocation>,
    button: Option<QuickReply>,
    flow: Option<Map<String, Value>>,
    /// Quick replies of `content`.
    buttons: Vec<QuickReply>,
    content: Option<Value>,
    by: Author,
    /// The reason why the handler failed, if the app has reported one (inbound).
    failure: Option<String>,
}

/// Media file in the control API.
#[derive(Clone, Serialize)]
pub(super) struct MediaView {
    url: String,
    content_type: String,
    /// Path at the emulator's origin that serves the content to the page, without the REST API's credentials.
    src: Option<String>,
    filename: Option<String>,
}

impl Record {
    /// Creates an inbound text message.
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
            author: Author::User,
            body,
            media: Vec::new(),
            location: None,
            button: None,
            tap: None,
            flow: None,
            content: None,
            status: MessageStatus::Received,
            error_code: None,
            service: None,
            status_callback: None,
            at,
            updated_at: at,
            sent_at: Some(at),
            send_at: None,
            is_unread: false,
            params: Vec::new(),
            typed_params: BTreeMap::new(),
            profile_name: None,
            has_executed_response: false,
            failure: None,
            in_reply_to: None,
            position: 0,
        }
    }

    pub(super) fn to_view(&self) -> MessageView {
        MessageView {
            sid: self.sid.clone(),
            sender: self.sender.clone(),
            direction: if self.direction.is_in() { "in" } else { "out" },
            body: self.body.clone(),
            media: self.media_views(),
            status: self.status.as_str().to_owned(),
            error_code: self.error_code.map(|code| code.0),
            at: self.at,
            location: self.location.clone(),
            button: self.button.clone(),
            flow: self.flow.clone(),
            buttons: self.quick_replies(),
            content: self.content_view(),
            by: self.author,
            failure: self.failure.clone(),
        }
    }

    /// Returns the items that send a message.
    fn quick_replies(&self) -> Vec<QuickReply> {
        let items = self.content.iter().flat_map(|content| &content.items);
        let replies = items.filter(|item| item.kind == PhoneItemKind::Reply);
        let button = |item: &PhoneItem| QuickReply {
            text: item.title.clone(),
            payload: item.payload().to_owned(),
        };
        replies.map(button).collect()
    }

    /// Returns the content's JSON, with the fetched file in place of each URL.
    pub(super) fn content_view(&self) -> Option<Value> {
        let mut content = serde_json::to_value(self.content.as_ref()?).ok()?;
        let files = self.media_views();
        let file = |url: &Value| {
            let file = files.iter().find(|file| *url == file.url);
            serde_json::to_value(file).unwrap_or_default()
        };
        let replace_urls = |media: &mut Value| {
            for url in media.as_array_mut().into_iter().flatten() {
                *url = file(url);
            }
        };
        replace_urls(&mut content["media"]);
        for card in content["cards"].as_array_mut().into_iter().flatten() {
            replace_urls(&mut card["media"]);
        }
        // An absent field would have become null above.
        if let Some(fields) = content.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Some(content)
    }

    pub(super) fn media_views(&self) -> Vec<MediaView> {
        let to_view = |media: &MediaRecord| MediaView {
            url: media.url.clone(),
            content_type: media.content_type.clone(),
            src: media
                .has_content
                .then(|| format!("/_emulator/media/{}", media.sid)),
            filename: media.filename.clone(),
        };
        self.media.iter().map(to_view).collect()
    }

    /// Returns whether the phone shows the message.
    pub(super) fn is_shown_on_phone(&self) -> bool {
        !matches!(
            self.status,
            MessageStatus::Failed
                | MessageStatus::Undelivered
                | MessageStatus::Canceled
                | MessageStatus::Scheduled
        )
    }
}

/// HTTP request with its response, sent or received by the emulator.
#[derive(Clone, Serialize)]
pub(super) struct Exchange {
    pub(super) id: String,
    pub(super) kind: ExchangeKind,
    pub(super) message_sid: Option<String>,
    /// SID of the inbound message, if this is a REST call without a message of its own and the app tells what it is for.
    pub(super) in_reply_to: Option<String>,
    pub(super) user: Option<String>,
    #[serde(serialize_with = "serialize_rfc3339")]
    pub(super) at: Timestamp,
    pub(super) request: ExchangeRequest,
    pub(super) response: Option<ExchangeResponse>,
    pub(super) ms: u64,
    pub(super) error_code: Option<u32>,
    /// Decoded parameters.
    pub(super) params: Vec<(String, String)>,
    pub(super) signed: Option<SignatureInfo>,
    pub(super) attempt: Option<&'static str>,
}

impl Exchange {
    /// Creates an exchange without a response.
    pub(super) fn new(kind: ExchangeKind, at: Timestamp, request: ExchangeRequest) -> Self {
        Self {
            // `EmulatorState::add_exchange` assigns the ID.
            id: String::new(),
            kind,
            message_sid: None,
            in_reply_to: None,
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

    /// Returns whether this is a refused call of `POST Messages`.
    pub(super) fn is_refused_message(&self) -> bool {
        self.kind == ExchangeKind::Rest
            && self.error_code.is_some()
            && self.request.method == "POST"
            && self.request.url.ends_with("/Messages.json")
    }

    /// Returns the approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let params = self
            .params
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let response = self
            .response
            .as_ref()
            .map_or(0, |response| response.body.len());
        let signed = self.signed.as_ref().map_or(0, |signed| signed.string.len());
        // 1024: a flat estimate for URL, headers and the struct itself.
        1024 + self.request.body.len() + response + signed + params.sum::<usize>()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExchangeKind {
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

/// Signed text of a webhook, and whether the server accepted the signature.
#[derive(Clone, Serialize)]
pub(super) struct SignatureInfo {
    pub(super) string: String,
    pub(super) verdict: String,
}

/// Entry of the debugger.
#[derive(Clone, Serialize)]
pub(super) struct DebuggerEntry {
    pub(super) code: u32,
    pub(super) level: &'static str,
    pub(super) message: String,
    pub(super) message_sid: Option<String>,
    pub(super) url: Option<String>,
    #[serde(serialize_with = "serialize_rfc3339")]
    pub(super) at: Timestamp,
    pub(super) more_info: String,
}

impl DebuggerEntry {
    pub(super) fn new(code: ErrorCode, detail: Option<&str>, at: Timestamp) -> Self {
        let meaning = code.meaning_or_link();
        let message = match detail {
            Some(detail) => format!("{meaning}: {detail}"),
            None => meaning.into_owned(),
        };
        Self {
            code: code.0,
            level: debugger_level(code),
            message,
            message_sid: None,
            url: None,
            at,
            more_info: code.more_info(),
        }
    }
}

/// Formats a time as RFC 3339 in UTC with milliseconds. Clients may compare these texts instead of parsing them.
pub(super) fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn serialize_rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// Returns whole milliseconds.
pub(super) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the level of Twilio's debugger.
///
/// Source: Twilio's error dictionary.
fn debugger_level(code: ErrorCode) -> &'static str {
    match code.0 {
        11321 | 11322 | 12200 | 14101..=14106 | 14108..=14111 | 63037 | 63052 => "warning",
        _ => "error",
    }
}
