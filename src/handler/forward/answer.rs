//! What a service says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::ForwardError;
use crate::reply::{Media, Reply, ReplyMessage, is_web_url};

/// What a reply can be, and then some: ten messages of 1600 characters are 64 kB.
const MOST_BYTES: usize = 1024 * 1024;
/// Keys that are told of.
const MOST_TOLD: usize = 32;
/// A longer key is no name.
const LONGEST_NAME: usize = 40;

/// A reply, and what stood beside it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Keys that mean nothing here, as a misspelt one.
    pub(super) unread: BTreeSet<String>,
}

/// The keys that were told of, so that each is told once.
#[derive(Default)]
pub(super) struct Unread(Mutex<BTreeSet<String>>);

impl Unread {
    /// Those of the keys that are to be told. What does not look like a key of a program is not: it may be a user's.
    pub(super) fn news(&self, keys: BTreeSet<String>) -> Vec<String> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |key: &String| told.len() < MOST_TOLD && told.insert(key.clone());
        let keys = keys.into_iter().map(|key| {
            if is_name(&key) {
                key
            } else {
                "(no plain name)".to_owned()
            }
        });
        keys.filter(is_new).collect()
    }
}

fn is_name(key: &str) -> bool {
    key.len() <= LONGEST_NAME
        && key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

pub(super) async fn read(response: &mut reqwest::Response) -> Result<Answer, ForwardError> {
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(Reply::none().into()),
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
    let failed = |error: reqwest::Error| ForwardError::of_reading(&error);
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(ForwardError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if body.is_empty() {
        return Ok(Reply::none().into());
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence {
        "text/plain" => {
            let text = String::from_utf8(body).map_err(|_| ForwardError::NotText)?;
            Ok(Reply::text(text).into())
        }
        "application/json" => {
            let said: serde_json::Value =
                serde_json::from_slice(&body).map_err(|error| ForwardError::Json {
                    line: error.line(),
                    column: error.column(),
                })?;
            let said: Said = serde_json::from_value(said).map_err(|_| ForwardError::Shape)?;
            said.answer()
        }
        _ => Err(ForwardError::ContentType),
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            unread: BTreeSet::new(),
        }
    }
}

/// Messages, or the only one.
#[derive(Deserialize)]
struct Said {
    messages: Option<Vec<SaidMessage>>,
    #[serde(flatten)]
    only: SaidMessage,
}

/// `null` is as good as nothing: many programs write it for what they do not set.
#[derive(Deserialize)]
struct SaidMessage {
    body: Option<String>,
    media: Option<Vec<String>>,
    #[serde(flatten)]
    #[expect(
        clippy::zero_sized_map_values,
        reason = "what is left over comes as a map"
    )]
    unread: BTreeMap<String, IgnoredAny>,
}

impl Said {
    fn answer(self) -> Result<Answer, ForwardError> {
        let Self { messages, mut only } = self;
        let mut unread: BTreeSet<_> = std::mem::take(&mut only.unread).into_keys().collect();
        let messages = match messages {
            Some(_) if only.says_something() => return Err(ForwardError::Both),
            Some(messages) => messages,
            None if only.is_nothing() => return Err(ForwardError::Shape),
            None => vec![only],
        };
        let mut reply = Vec::with_capacity(messages.len());
        for (number, mut message) in (1..).zip(messages) {
            if message.is_nothing() {
                return Err(ForwardError::Nothing(number));
            }
            unread.extend(std::mem::take(&mut message.unread).into_keys());
            reply.push(message.reply()?);
        }
        let reply = reply.into_iter().collect();
        Ok(Answer { reply, unread })
    }
}

impl SaidMessage {
    /// Not even an empty text.
    fn is_nothing(&self) -> bool {
        self.body.is_none() && self.media.is_none()
    }

    fn says_something(&self) -> bool {
        let has_text = self.body.as_ref().is_some_and(|body| !body.is_empty());
        has_text || self.media.as_ref().is_some_and(|media| !media.is_empty())
    }

    fn reply(self) -> Result<ReplyMessage, ForwardError> {
        let mut said = ReplyMessage::text(self.body.unwrap_or_default());
        for url in self.media.unwrap_or_default() {
            if !is_web_url(&url) {
                return Err(ForwardError::MediaUrl);
            }
            said = said.media(Media::url(url));
        }
        Ok(said)
    }
}
