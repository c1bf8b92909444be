//! The response of the service, read as a reply.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::choices::{ServiceContent, ServiceLocation, add_choices};
use super::error::ForwardError;
use super::handoff::ServiceHandoff;
use super::surrogates::replace_unpaired_surrogates;
use super::unknown_keys::loggable;
use crate::choice::ChoiceForm;
use crate::reply::{Media, Reply, ReplyMessage, is_web_url};
use crate::spelling::misspelt;

/// Maximum size of a response in bytes.
// Much more than a reply needs (ten messages of 1600 characters take 64 kB), and little enough to hold in memory.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Mark at the beginning of a text in UTF-8, which some editors and frameworks write.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Keys of one message, in a response and in a request of the HTTP API.
pub(crate) const MESSAGE_KEYS: [&str; 8] = [
    "body",
    "media",
    "choices",
    "choices_key",
    "choices_button",
    "choices_hint",
    "content",
    "location",
];
/// Keys of a whole response, in addition to those of a message. A key that is nearly one of both is a failure, unless one of
/// them has something to send.
const RESPONSE_KEYS: [&str; 2] = ["messages", "handoff"];
/// Keys that have something to send, or to start. The others only add to one of these.
const CONTENT_KEYS: [&str; 7] = [
    "messages", "body", "media", "choices", "content", "location", "handoff",
];

/// A reply, and the keys of the response that were ignored.
pub(super) struct ServiceResponse {
    pub(super) reply: Reply,
    /// Unknown keys, such as misspelt ones.
    pub(super) unknown_keys: BTreeSet<String>,
    /// True if the response is an object that has only unknown keys, such as a workflow tool's confirmation.
    pub(super) is_foreign: bool,
    /// Reason why choices are sent as a text without an answer, for the log.
    pub(super) invalid_choices: Option<String>,
    /// Parts that were left out of the reply because they are invalid.
    pub(super) left_out: BTreeSet<&'static str>,
}

/// Reads a whole response.
///
/// # Errors
/// [`ForwardError`] if it is not a reply.
pub(super) async fn read(
    response: &mut reqwest::Response,
) -> Result<ServiceResponse, ForwardError> {
    let status = response.status();
    match status {
        StatusCode::OK => {}
        // 202: the service has taken the message and replies later or not at all. Its body is a note for programs.
        StatusCode::NO_CONTENT | StatusCode::ACCEPTED => return Ok(Reply::none().into()),
        // Not every 3xx: 304, for example, does not name another URL, and its advice would be wrong.
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => return Err(ForwardError::Redirect(status.as_u16())),
        _ => return Err(ForwardError::Status(status.as_u16())),
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let mut body = Vec::new();
    let failed = |error: reqwest::Error| ForwardError::from_read_error(&error);
    // Count the bytes as they arrive: `Content-Length` may be missing or wrong.
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(ForwardError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if body.starts_with(BYTE_ORDER_MARK) {
        body.drain(..BYTE_ORDER_MARK.len());
    }
    // Before the content type: an empty body means that no reply is sent, whatever its type is.
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Reply::none().into());
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence {
        "text/plain" => {
            let text = String::from_utf8(body).map_err(|_| ForwardError::NotText)?;
            Ok(Reply::text(text).into())
        }
        "application/json" => read_json(body),
        _ => Err(ForwardError::ContentType),
    }
}

fn read_json(mut body: Vec<u8>) -> Result<ServiceResponse, ForwardError> {
    // JavaScript can cut a text inside a character, and writes the rest as an escape that serde_json rejects.
    replace_unpaired_surrogates(&mut body);
    // In two steps, to tell invalid JSON from JSON of another shape.
    let json: serde_json::Value =
        serde_json::from_slice(&body).map_err(|error| ForwardError::Json {
            line: error.line(),
            column: error.column(),
        })?;
    match &json {
        serde_json::Value::Null => return Ok(Reply::none().into()),
        serde_json::Value::Object(fields) => {
            let given = |key: &&str| fields.get(*key).is_some_and(|value| !value.is_null());
            // Neither an empty list nor an empty text is something to send, so another key must be meant for it.
            let is_sent = |key: &&str| fields.get(*key).is_some_and(|value| !is_blank(value));
            let keys = [&RESPONSE_KEYS[..], &MESSAGE_KEYS].concat();
            let unknown = fields.keys().filter(|key| !keys.contains(&key.as_str()));
            if !CONTENT_KEYS.iter().any(is_sent)
                && let Some((given, meant)) = find_misspelt(unknown.clone(), &keys)
            {
                return Err(ForwardError::Misspelt { given, meant });
            }
            if !keys.iter().any(given) {
                return Ok(foreign(unknown.cloned().collect()));
            }
        }
        _ => {}
    }
    let reply: ServiceReply = serde_json::from_value(json).map_err(|_| ForwardError::Shape)?;
    reply.into_response()
}

/// Returns whether a value is null, or an empty text or list.
fn is_blank(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Returns the first key that is probably meant to be one of ours, as it is logged, with ours.
// Without anything to send, such a key is a failure: silence would hide the mistake.
fn find_misspelt<'k>(
    mut keys: impl Iterator<Item = &'k String>,
    known: &[&'static str],
) -> Option<(String, &'static str)> {
    keys.find_map(|given| {
        // Workflow tools respond with `message`, `messageId` and the like.
        let is_other_word = given.to_ascii_lowercase().starts_with("message")
            && !given.eq_ignore_ascii_case("messages");
        let meant = misspelt(given, known.iter().copied()).filter(|_| !is_other_word)?;
        Some((loggable(given.clone()), meant))
    })
}

/// Returns the empty reply of an object that has none of our keys, given its keys.
fn foreign(keys: BTreeSet<String>) -> ServiceResponse {
    ServiceResponse {
        reply: Reply::none(),
        is_foreign: !keys.is_empty(),
        invalid_choices: None,
        left_out: BTreeSet::new(),
        unknown_keys: keys,
    }
}

impl From<Reply> for ServiceResponse {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            unknown_keys: BTreeSet::new(),
            is_foreign: false,
            invalid_choices: None,
            left_out: BTreeSet::new(),
        }
    }
}

/// A JSON response: a list of messages, or one message.
#[derive(Deserialize)]
struct ServiceReply {
    messages: Option<Vec<ServiceMessage>>,
    // Of the whole response, also next to `messages`. Parsed later, so that an invalid value does not lose the text.
    handoff: Option<serde_json::Value>,
    #[serde(flatten)]
    single: ServiceMessage,
}

/// One message of a JSON response.
// `null` is the same as a missing key: many serializers write it for a field that is not set.
#[derive(Deserialize)]
struct ServiceMessage {
    body: Option<String>,
    media: Option<Vec<String>>,
    // Parsed later, so that an invalid value does not lose the text.
    choices: Option<serde_json::Value>,
    choices_key: Option<serde_json::Value>,
    choices_button: Option<serde_json::Value>,
    choices_hint: Option<serde_json::Value>,
    content: Option<serde_json::Value>,
    location: Option<serde_json::Value>,
    #[serde(flatten)]
    #[expect(
        clippy::zero_sized_map_values,
        reason = "serde(flatten) collects unknown keys into a map"
    )]
    unknown_keys: BTreeMap<String, IgnoredAny>,
}

impl ServiceReply {
    fn into_response(self) -> Result<ServiceResponse, ForwardError> {
        let Self {
            messages,
            handoff,
            mut single,
        } = self;
        // Take the unknown keys out first, so that they are logged whichever form the response has.
        let mut unknown_keys: BTreeSet<_> = std::mem::take(&mut single.unknown_keys)
            .into_keys()
            .collect();
        let (mut invalid_choices, mut left_out) = (None, BTreeSet::new());
        let messages = match messages {
            // An empty body or list next to `messages` is accepted, since it adds nothing to send.
            Some(_) if single.has_content_beside_choices() => {
                return Err(ForwardError::MessagesAndOther(
                    single.content_keys().join(", "),
                ));
            }
            // The question is the last message, or there is none and the choices are the reply.
            Some(mut messages) => {
                match messages.last_mut() {
                    Some(last) => left_out.extend(last.add_choices_of(single)),
                    None if single.choices.is_some() => messages.push(single),
                    None => {}
                }
                messages
            }
            // All keys of ours are null, which is the same as none of them.
            None if single.has_no_keys() => Vec::new(),
            None => vec![single],
        };
        let mut reply_messages = Vec::with_capacity(messages.len());
        for (number, mut message) in (1..).zip(messages) {
            if !message.has_content()
                && let Some((given, meant)) =
                    find_misspelt(message.unknown_keys.keys(), &MESSAGE_KEYS)
            {
                return Err(ForwardError::MisspeltInMessage {
                    number,
                    given,
                    meant,
                });
            }
            if message.has_no_keys() {
                return Err(ForwardError::EmptyMessage(number));
            }
            unknown_keys.extend(std::mem::take(&mut message.unknown_keys).into_keys());
            let read = message.into_reply_messages()?;
            reply_messages.extend(read.messages);
            invalid_choices = invalid_choices.or(read.invalid_choices);
            unknown_keys.extend(read.unknown_keys);
            left_out.extend(read.left_out);
        }
        let handoff = match handoff.map(ServiceHandoff::read) {
            Some(Some(handoff)) => {
                unknown_keys.extend(handoff.unknown_keys());
                Some(handoff)
            }
            Some(None) => {
                left_out.insert("handoff");
                None
            }
            None => None,
        };
        // Without anything else to send, silence would hide the mistake.
        if reply_messages.is_empty() && handoff.is_none() {
            if left_out.contains("content") || left_out.contains("location") {
                return Err(ForwardError::Content);
            }
            if left_out.contains("handoff") {
                return Err(ForwardError::Handoff);
            }
        }
        let reply = match handoff {
            Some(handoff) => handoff.into_reply(reply_messages),
            None => reply_messages.into_iter().collect(),
        };
        Ok(ServiceResponse {
            reply,
            unknown_keys,
            is_foreign: false,
            invalid_choices,
            left_out,
        })
    }
}

impl ServiceMessage {
    /// Returns whether all keys that make a message are missing. An empty body is a body.
    fn has_no_keys(&self) -> bool {
        self.body.is_none() && self.media.is_none() && !self.has_rich_content()
    }

    fn has_rich_content(&self) -> bool {
        self.choices.is_some() || self.content.is_some() || self.location.is_some()
    }

    fn has_content(&self) -> bool {
        !self.content_keys().is_empty()
    }

    fn has_content_beside_choices(&self) -> bool {
        self.content_keys().iter().any(|key| *key != "choices")
    }

    /// Returns the keys that have something to send.
    fn content_keys(&self) -> Vec<&'static str> {
        let keys = [
            (
                "body",
                self.body.as_ref().is_some_and(|body| !body.is_empty()),
            ),
            (
                "media",
                self.media.as_ref().is_some_and(|media| !media.is_empty()),
            ),
            ("choices", self.choices.is_some()),
            ("content", self.content.is_some()),
            ("location", self.location.is_some()),
        ];
        let sent = keys.into_iter().filter(|(_, is_sent)| *is_sent);
        sent.map(|(key, _)| key).collect()
    }

    /// Takes over the choices that the response has next to `messages`, unless the message has its own. Returns the key
    /// that is left out then.
    fn add_choices_of(&mut self, response: Self) -> Option<&'static str> {
        let is_left_out = self.choices.is_some() && response.choices.is_some();
        self.choices = self.choices.take().or(response.choices);
        self.choices_key = self.choices_key.take().or(response.choices_key);
        self.choices_button = self.choices_button.take().or(response.choices_button);
        self.choices_hint = self.choices_hint.take().or(response.choices_hint);
        is_left_out.then_some("choices")
    }

    /// Returns the messages without the parts that are invalid.
    ///
    /// # Errors
    /// [`ForwardError::MediaUrl`] if a media URL is invalid.
    fn into_reply_messages(self) -> Result<ReadMessage, ForwardError> {
        let mut read = ReadMessage::default();
        let mut message = ReplyMessage::text(self.body.unwrap_or_default());
        for url in self.media.unwrap_or_default() {
            // Check here, where the error can name the service; Twilio would fail later, when it fetches the URL.
            if !is_web_url(&url) {
                return Err(ForwardError::MediaUrl);
            }
            message = message.media(Media::url(url));
        }
        if let Some(choices) = &self.choices {
            let choices = add_choices(message, choices);
            message = choices.message;
            read.invalid_choices = choices.reason;
            read.unknown_keys = choices.unknown_keys;
        }
        if read.invalid_choices.is_none() && self.choices.is_some() {
            match self.choices_key {
                Some(serde_json::Value::String(key)) => message = message.choices_key(key),
                Some(_) => read.left_out.extend(["choices_key"]),
                None => {}
            }
            match self.choices_button {
                Some(serde_json::Value::String(label)) if ChoiceForm::fits_label(&label) => {
                    message = message.choices_button(label);
                }
                Some(_) => read.left_out.extend(["choices_button"]),
                None => {}
            }
            match self.choices_hint {
                Some(serde_json::Value::String(hint)) => message = message.choices_hint(hint),
                Some(_) => read.left_out.extend(["choices_hint"]),
                None => {}
            }
        }
        // A template and a location are messages of their own, after the text. So is a link next to choices, before the
        // question, since a message has one or the other.
        let has_choices = self.choices.is_some();
        let mut template = None;
        match self.content.map(ServiceContent::read) {
            Some(Ok(ServiceContent::Template(message))) => template = Some(message),
            Some(Ok(ServiceContent::Link(link))) if has_choices => {
                read.messages.push(link.add_to(ReplyMessage::default()));
            }
            Some(Ok(ServiceContent::Link(link))) => message = link.add_to(message),
            Some(Err(_)) => read.left_out.extend(["content"]),
            None => {}
        }
        read.messages.push(message);
        read.messages.extend(template);
        match self.location.map(ServiceLocation::read) {
            Some(Ok(location)) => read.messages.push(location),
            Some(Err(_)) => read.left_out.extend(["location"]),
            None => {}
        }
        read.messages.retain(|message| !message.is_empty());
        Ok(read)
    }
}

/// A message of a response as messages of a reply, and what is to be logged.
#[derive(Default)]
pub(crate) struct ReadMessage {
    /// Messages without the parts that are invalid.
    pub(crate) messages: Vec<ReplyMessage>,
    /// Reason why the choices are invalid.
    pub(crate) invalid_choices: Option<String>,
    /// Unknown keys of choices.
    pub(crate) unknown_keys: BTreeSet<String>,
    /// Parts that are invalid.
    pub(crate) left_out: BTreeSet<&'static str>,
}

/// Reads the fields of one message, for other readers of this format.
///
/// # Errors
/// The name of a field of the wrong kind, which is `body` or `media`.
#[cfg(feature = "app")]
pub(crate) fn read_message(
    fields: serde_json::Map<String, serde_json::Value>,
) -> Result<ReadMessage, &'static str> {
    let is_body_valid = matches!(
        fields.get("body"),
        None | Some(serde_json::Value::Null | serde_json::Value::String(_))
    );
    if !is_body_valid {
        return Err("body");
    }
    // The other fields are of any kind here, so what is invalid now is `media`.
    let message: ServiceMessage =
        serde_json::from_value(serde_json::Value::Object(fields)).map_err(|_| "media")?;
    message.into_reply_messages().map_err(|_| "media")
}
