//! Inbound messages of simulated users: validation of `POST /_emulator/messages`, and the record made from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::account::{SENDERS, random_sid, sender_for};
use super::engine::Engine;
use super::media::{FetchError, MAX_MEDIA_BYTES, fetch_media, is_loopback};
use super::record::{MediaRecord, QuickReply, Record};
use super::shared_location::SharedLocation;
use super::state::StoredMedia;
use super::tap::{TappedItem, UserChoice, find_flow_origin, find_tapped_item};
use super::webhook_params;
use replyhook_core::address::{Address, Channel};
use replyhook_core::reply::names::media_type_by_extension;

/// Maximum number of media files in a message.
const MAX_FILES: usize = 10;
/// Maximum number of bytes in the body and the additional parameters.
const MAX_TEXT_BYTES: usize = 128 * 1024;

/// Body of `POST /_emulator/messages`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserMessage {
    from: String,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    media: Vec<UserMedia>,
    #[serde(default)]
    location: Option<SharedLocation>,
    #[serde(default)]
    button: Option<QuickReply>,
    /// Item of a message that the phone shows.
    #[serde(default)]
    choice: Option<UserChoice>,
    /// Fields of a Flow's form.
    #[serde(default)]
    flow: Option<Map<String, Value>>,
    #[serde(default)]
    profile_name: Option<String>,
    /// Webhook parameters to replace or add.
    #[serde(default)]
    params: BTreeMap<String, String>,
}

/// Media file, given by exactly one of `url`, `path` (below the media folder) and `data` (base64).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserMedia {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    filename: Option<String>,
}

fn checked_address(field: &str, text: &str) -> Result<String, String> {
    match Address::parse_strict(text) {
        Some(address) => Ok(address.as_str().to_owned()),
        None => Err(format!(
            "{field}: not an address: write it as Twilio does, with + before a phone number: whatsapp:+15550001111 or +15550004444"
        )),
    }
}

/// Validates a user's message, stores its media, and adds it to the conversation.
///
/// # Errors
/// An explanation of what is invalid.
pub(super) async fn accept_message(
    engine: &Engine,
    mut message: UserMessage,
) -> Result<Record, String> {
    // These parameters also change the message, so that the conversation shows what the webhook contains.
    let param = |name: &str| message.params.get(name).cloned();
    // A parameter may be anything: it shows what a server does with a malformed request. An address is checked, since a phone
    // number without + would be no user of Twilio's, and the bot's server would ignore it without a reply.
    message.from = match param("From") {
        Some(from) => from,
        None => checked_address("from", &message.from)?,
    };
    message.to = match (param("To"), message.to) {
        (Some(to), _) => Some(to),
        (None, Some(to)) => Some(checked_address("to", &to)?),
        (None, None) => None,
    };
    message.body = param("Body").or(message.body);
    if message.media.len() > MAX_FILES {
        return Err(format!("media: {MAX_FILES} files at most"));
    }
    let params = message.params.iter();
    let length = params.fold(0, |sum, (name, value)| sum + name.len() + value.len());
    if length + message.body.as_ref().map_or(0, String::len) > MAX_TEXT_BYTES {
        return Err(format!("body and params: {MAX_TEXT_BYTES} bytes at most"));
    }
    let user = Address::parse(message.from.trim());
    if user.id().trim().is_empty() {
        return Err("from: an address, as in whatsapp:+15550001111 or +15550004444".to_owned());
    }
    let tapped = tapped_item(engine, &user, &message)?;
    let sender = match (&message.to, &tapped) {
        (Some(to), _) => to.trim().to_owned(),
        (None, Some(tapped)) => tapped.sender.clone(),
        (None, None) => sender_for(&user)
            .ok_or("to: required, because the account has no sender on this channel")?
            .to_owned(),
    };
    if Address::parse(sender.as_str()).channel() != user.channel() {
        return Err(format!("from and to: on different channels ({sender})"));
    }
    if sender == user.as_str() {
        return Err("from and to: the same address".to_owned());
    }
    if let Some(problem) = message.location.as_ref().and_then(SharedLocation::problem) {
        return Err(format!("location.{problem}"));
    }
    if message.flow.is_some() && *user.channel() != Channel::WhatsApp {
        return Err("flow: only WhatsApp has Flows".to_owned());
    }
    let mut tap = None;
    if let Some(tapped) = tapped {
        message.button = Some(tapped.button);
        tap = Some(tapped.origin);
    } else if message.flow.is_some() {
        tap = find_flow_origin(&engine.state(), user.as_str(), &sender);
    }
    let button_text = message.button.as_ref().map(|button| button.text.clone());
    // A tap sends the text of the button, unless `params` has another `Body`.
    let is_tap = button_text.is_some() && !message.params.contains_key("Body");
    let body = message.body.filter(|body| !(is_tap && body.is_empty()));
    let body = body.or(button_text).unwrap_or_default();
    let has_media = !message.media.is_empty();
    let sid = match message.params.get("MessageSid") {
        Some(sid) => sid.clone(),
        None => random_sid(if has_media { "MM" } else { "SM" }),
    };
    // Everything else is valid at this point: media is not fetched for a message that would be rejected.
    let mut files = Vec::new();
    for media in message.media {
        files.push(store_media(engine, &sid, media).await?);
    }
    let now = engine.now();
    let mut record = Record {
        media: files,
        location: message.location,
        button: message.button,
        tap,
        flow: message.flow,
        service: message.params.get("MessagingServiceSid").cloned(),
        profile_name: message.profile_name,
        ..Record::inbound(sid, user.as_str().to_owned(), sender, body, now)
    };
    let form = webhook_params::inbound(engine.account.sid.as_str(), &record);
    let other_params = form
        .iter()
        .filter(|(name, _)| !message.params.contains_key(*name));
    record.params = other_params
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(message.params.clone())
        .collect();
    record.typed_params = message.params;
    // Any address becomes a sender of the account when a user writes to it, so that the bot can reply from it.
    let mut state = engine.state();
    let is_known = SENDERS.contains(&record.sender.as_str());
    if !is_known && !state.senders.contains(&record.sender) {
        state.senders.push(record.sender.clone());
    }
    state.add_message(record.clone());
    drop(state);
    engine.emit_message(&record);
    Ok(record)
}

/// Finds the item of a message's `choice`, if it has one.
fn tapped_item(
    engine: &Engine,
    user: &Address,
    message: &UserMessage,
) -> Result<Option<TappedItem>, String> {
    let Some(choice) = &message.choice else {
        return Ok(None);
    };
    let has_other_content = message.body.as_ref().is_some_and(|body| !body.is_empty())
        || !message.media.is_empty()
        || message.location.is_some()
        || message.button.is_some()
        || message.flow.is_some();
    if has_other_content {
        return Err(
            "choice: a tap is a message of its own; leave out body, media, location, button and flow"
                .to_owned(),
        );
    }
    let sender = message.to.as_deref().map(str::trim);
    find_tapped_item(&engine.state(), user, sender, choice).map(Some)
}

async fn store_media(
    engine: &Engine,
    message: &str,
    media: UserMedia,
) -> Result<MediaRecord, String> {
    let (bytes, default_name, fetched_type): (Option<Vec<u8>>, Option<String>, Option<String>) =
        match (&media.data, &media.path, &media.url) {
            (Some(data), None, None) => {
                let bytes = STANDARD
                    .decode(data)
                    .map_err(|_| "media[].data: not base64".to_owned())?;
                (Some(bytes), None, None)
            }
            (None, Some(path), None) => {
                let name = Path::new(path).file_name();
                let name = name.map(|name| name.to_string_lossy().into_owned());
                let bytes = read_file(engine, path)
                    .await
                    .map_err(|error| format!("media[].path: {error}"))?;
                (Some(bytes), name, None)
            }
            (None, None, Some(url)) => {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                let name = path.rsplit('/').next().map(str::to_owned);
                match fetch_media(engine, url, MAX_MEDIA_BYTES, None).await {
                    Ok((bytes, content_type)) => (Some(bytes), name, content_type),
                    // Send the message without the content, so that the emulator works offline. The bot's fetch of
                    // this media gets 404.
                    Err(FetchError::Unreachable) if !is_loopback(url) => (None, name, None),
                    Err(error) => {
                        return Err(format!("media[].url: cannot be fetched: {error}"));
                    }
                }
            }
            _ => return Err("media[]: give one of url, path and data".to_owned()),
        };
    if bytes
        .as_ref()
        .is_some_and(|bytes| bytes.len() > MAX_MEDIA_BYTES)
    {
        return Err("media[]: file larger than 16 MiB".to_owned());
    }
    let filename = media
        .filename
        .or(default_name)
        .filter(|name| !name.is_empty());
    // The given type wins, then that of the response, then a guess from the extension.
    let content_type = media
        .content_type
        .or(fetched_type)
        .or_else(|| {
            filename
                .as_deref()
                .and_then(media_type_by_extension)
                .map(str::to_owned)
        })
        .unwrap_or_else(|| "application/octet-stream".to_owned());
    let sid = random_sid("ME");
    let account = engine.account.sid;
    let url = format!(
        "{}/2010-04-01/Accounts/{account}/Messages/{message}/Media/{sid}",
        engine.origin
    );
    let at = engine.now();
    let has_content = bytes.is_some();
    if let Some(bytes) = bytes {
        let content = StoredMedia {
            bytes: Arc::from(bytes),
            content_type: content_type.clone(),
        };
        engine.state().add_media(&sid, content);
    }
    Ok(MediaRecord {
        sid,
        url,
        content_type,
        filename,
        has_content,
        at,
    })
}

/// Reads a file below the media folder.
async fn read_file(engine: &Engine, path: &str) -> Result<Vec<u8>, String> {
    let folder = engine.media_folder.clone();
    let folder = folder.ok_or("the folder that the emulator was started in is gone")?;
    let path = PathBuf::from(path);
    // File I/O blocks.
    let read_task = tokio::task::spawn_blocking(move || folder.read(&path, MAX_MEDIA_BYTES));
    read_task.await.map_err(|error| error.to_string())?
}
