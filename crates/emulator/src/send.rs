//! Outbound messages and replies: from TwiML, from the REST API, and Twilio's own confirmations.

use std::sync::Arc;

use jiff::Timestamp;

use super::account::random_sid;
use super::content::delivery::ContentDelivery;
use super::content::phone_content::{PhoneContent, PhoneLayout};
use super::content::stored_content::is_own_sid;
use super::engine::Engine;
use super::faults::Faults;
use super::media::{FetchError, MAX_MEDIA_BYTES, fetch_media, is_loopback};
use super::record::{Author, Direction, MediaRecord, Record};
use super::shared_location::SharedLocation;
use super::state::{StoredMedia, block_key};
use super::status::advance_status;
use replyhook_core::address::{Address, Channel, Identity};
use replyhook_core::error_code::ErrorCode;
use replyhook_core::message::MessageStatus;
use replyhook_core::reply::names::media_type_by_extension;

/// Maximum size of a media file in an MMS.
const MAX_MMS_BYTES: usize = 5 * 1024 * 1024;

/// Returns whether an address can receive messages.
pub(super) fn is_valid_recipient(user: &Address) -> bool {
    let has_identity = |identities: &[Identity]| identities.contains(&user.identity());
    match user.channel() {
        // At least seven digits. +15005550001 is the invalid number of Twilio's test credentials.
        Channel::Sms if user.identity() == Identity::Phone => {
            user.id().len() >= 8 && user.id() != "+15005550001"
        }
        Channel::Sms => has_identity(&[Identity::ShortCode]),
        Channel::WhatsApp => has_identity(&[Identity::Phone, Identity::BusinessScopedId]),
        _ => !user.id().is_empty(),
    }
}

/// Returns the maximum number of media files in a message.
pub(super) fn max_files(user: &Address) -> usize {
    if *user.channel() == Channel::WhatsApp {
        1
    } else {
        10
    }
}

/// Message to send.
pub(super) struct OutboundDraft {
    pub(super) direction: Direction,
    pub(super) author: Author,
    pub(super) sender: String,
    pub(super) user: String,
    pub(super) body: String,
    pub(super) media: Vec<String>,
    pub(super) location: Option<SharedLocation>,
    /// Content of a template, and the conditions for its delivery.
    pub(super) content: Option<(PhoneContent, ContentDelivery)>,
    pub(super) service: Option<String>,
    pub(super) status_callback: Option<String>,
    pub(super) status: MessageStatus,
    pub(super) send_at: Option<Timestamp>,
    /// SID of the inbound message, if this is a TwiML reply.
    pub(super) in_reply_to: Option<String>,
}

impl OutboundDraft {
    /// Creates an empty reply.
    pub(super) fn reply(sender: String, user: String) -> Self {
        Self {
            direction: Direction::Reply,
            author: Author::Bot,
            sender,
            user,
            body: String::new(),
            media: Vec::new(),
            location: None,
            content: None,
            service: None,
            status_callback: None,
            status: MessageStatus::Queued,
            send_at: None,
            in_reply_to: None,
        }
    }
}

/// Sends a TwiML reply. When this returns, its media is fetched.
pub(super) async fn send_reply(engine: &Arc<Engine>, draft: OutboundDraft) -> Record {
    let message = add_message(engine, draft);
    // 14107 is about replies. Messages sent via the REST API do not count.
    let now = engine.now();
    let is_loop = engine
        .state()
        .count_reply(&message.sender, &message.user, now);
    if is_loop {
        let detail = "Twilio would fail further replies for 30 s; the emulator still sends them";
        engine.add_debugger_entry(ErrorCode(14107), Some(detail), Some(&message.sid), None);
    }
    let generation = engine.state().generation;
    let failure = prepare_delivery(engine, &message.sid, None).await;
    // Before `advance_status`: a TwiML action reports the first status, not a later one.
    let current = engine.state().message(&message.sid).cloned();
    advance_status(engine, message.sid.clone(), failure, generation);
    current.unwrap_or(message)
}

/// Queues a message from the REST API. Media is fetched afterwards, and errors reach the bot as a status.
pub(super) fn queue_api_message(engine: &Arc<Engine>, draft: OutboundDraft) -> Record {
    let content = draft.content.as_ref();
    let delivery = content.map(|(_, delivery)| delivery.clone());
    let message = add_message(engine, draft);
    let (engine, sid) = (engine.clone(), message.sid.clone());
    let (send_at, generation) = (message.send_at, engine.state().generation);
    tokio::spawn(async move {
        if let Some(at) = send_at {
            engine.clock.sleep_until(at).await;
            if !accept_scheduled(&engine, &sid, generation) {
                return;
            }
        }
        let failure = prepare_delivery(&engine, &sid, delivery.as_ref()).await;
        advance_status(&engine, sid, failure, generation);
    });
    message
}

/// Sends a message of Twilio itself. It has no media, and neither opt-outs nor the window apply.
pub(super) fn send_twilio_confirmation(engine: &Arc<Engine>, sender: &str, user: &str, text: &str) {
    let draft = OutboundDraft {
        author: Author::Twilio,
        body: text.to_owned(),
        ..OutboundDraft::reply(sender.to_owned(), user.to_owned())
    };
    let message = add_message(engine, draft);
    let generation = engine.state().generation;
    advance_status(engine, message.sid, None, generation);
}

fn add_message(engine: &Engine, draft: OutboundDraft) -> Record {
    let now = engine.now();
    let content = draft.content.map(|(content, _)| content);
    let is_rich = content
        .as_ref()
        .is_some_and(|content| content.layout != PhoneLayout::Text);
    let is_mm = is_rich || !draft.media.is_empty();
    let message_sid = random_sid(if is_mm { "MM" } else { "SM" });
    let file = |url: String| MediaRecord {
        sid: random_sid("ME"),
        // A guess from the extension, until `prepare_delivery` has fetched the file.
        content_type: media_type_by_extension(&url)
            .unwrap_or("application/octet-stream")
            .to_owned(),
        filename: None,
        url,
        has_content: false,
        at: now,
    };
    let message = Record {
        sid: message_sid,
        user: draft.user,
        sender: draft.sender,
        direction: draft.direction,
        author: draft.author,
        body: draft.body,
        media: draft.media.into_iter().map(file).collect(),
        location: draft.location,
        button: None,
        tap: None,
        flow: None,
        content,
        status: draft.status,
        error_code: None,
        service: draft.service,
        status_callback: draft.status_callback,
        at: now,
        updated_at: now,
        sent_at: None,
        send_at: draft.send_at,
        is_unread: true,
        params: Vec::new(),
        typed_params: std::collections::BTreeMap::new(),
        profile_name: None,
        has_executed_response: false,
        failure: None,
        in_reply_to: draft.in_reply_to,
        position: 0,
    };
    engine.state().add_message(message.clone());
    engine.emit_message(&message);
    message
}

/// Marks a due scheduled message as accepted. Returns false if it was canceled, deleted or reset.
fn accept_scheduled(engine: &Engine, sid: &str, generation: u64) -> bool {
    let now = engine.now();
    let mut state = engine.state();
    if state.generation != generation {
        return false;
    }
    let Some(message) = state.message_mut(sid) else {
        return false;
    };
    // Check and set under one lock: a message that is canceled in between must not be sent.
    if message.status != MessageStatus::Scheduled {
        return false;
    }
    message.status = MessageStatus::Accepted;
    message.updated_at = now;
    true
}

/// Checks whether a message can be delivered, and fetches its media. Returns the error code if it cannot.
async fn prepare_delivery(
    engine: &Engine,
    sid: &str,
    content: Option<&ContentDelivery>,
) -> Option<ErrorCode> {
    let message = engine.state().message(sid).cloned()?;
    if let Some((code, detail)) = rejection(engine, &message, content) {
        engine.add_debugger_entry(code, detail.as_deref(), Some(sid), None);
        return Some(code);
    }
    let is_sms = *Address::parse(message.user.as_str()).channel() == Channel::Sms;
    let max_bytes = if is_sms {
        MAX_MMS_BYTES
    } else {
        MAX_MEDIA_BYTES
    };
    for file in &message.media {
        match fetch_media(engine, &file.url, max_bytes, Some(&message)).await {
            Ok((bytes, content_type)) => {
                let has_message = store_fetched(engine, sid, file, bytes, content_type);
                if !has_message {
                    return None;
                }
            }
            Err(FetchError::TooLarge) => {
                engine.add_debugger_entry(ErrorCode(11751), None, Some(sid), Some(&file.url));
                return Some(ErrorCode(11751));
            }
            // Not a fault of the bot: this machine may be offline, and Twilio could reach the host. A loopback URL
            // must work.
            Err(FetchError::Unreachable) if !is_loopback(&file.url) => {}
            Err(error) => {
                let detail = error.to_string();
                engine.add_debugger_entry(
                    ErrorCode(63019),
                    Some(&detail),
                    Some(sid),
                    Some(&file.url),
                );
                return Some(ErrorCode(63019));
            }
        }
    }
    None
}

/// Stores a fetched file of a message. Returns false if the message was deleted during the fetch.
fn store_fetched(
    engine: &Engine,
    message_sid: &str,
    file: &MediaRecord,
    bytes: Vec<u8>,
    content_type: Option<String>,
) -> bool {
    let mut state = engine.state();
    let Some(message) = state.message_mut(message_sid) else {
        return false;
    };
    // By SID, since the bot can delete files of the message during the fetch. A file that is deleted is not stored
    // again.
    let mut files = message.media.iter_mut();
    let Some(stored_file) = files.find(|stored| stored.sid == file.sid) else {
        return true;
    };
    let content_type = content_type.unwrap_or_else(|| file.content_type.clone());
    stored_file.content_type.clone_from(&content_type);
    stored_file.has_content = true;
    let message = message.clone();
    state.add_media(
        &file.sid,
        StoredMedia {
            bytes: Arc::from(bytes),
            content_type,
        },
    );
    drop(state);
    engine.emit_message(&message);
    true
}

/// Returns error code and explanation of an opt-out, a closed window, or content that the channel refuses.
fn rejection(
    engine: &Engine,
    message: &Record,
    content: Option<&ContentDelivery>,
) -> Option<(ErrorCode, Option<String>)> {
    if message.author == Author::Twilio {
        return None;
    }
    let user = Address::parse(message.user.as_str());
    let now = engine.now();
    let (is_open, is_gone) = {
        let state = engine.state();
        let key = block_key(&message.sender, &message.user);
        if state.blocked.contains(&key) {
            return Some((ErrorCode(21610), None));
        }
        // A template may be deleted before a scheduled message is due.
        let is_gone = |sid: &str| {
            let exists = state.contents.iter().any(|content| content.sid == sid);
            message.send_at.is_some() && is_own_sid(sid) && !exists
        };
        (
            state.is_window_open(&message.sender, &message.user, now),
            content.is_some_and(|content| is_gone(&content.sid)),
        )
    };
    let Some(content) = content else {
        let is_closed = *user.channel() == Channel::WhatsApp && !is_open;
        return is_closed.then_some((ErrorCode(63016), None));
    };
    if is_gone {
        let problem = "the template was deleted".to_owned();
        return Some((ErrorCode(63027), Some(problem)));
    }
    if let Some(code) = engine.change_faults(Faults::take_content_failure) {
        let detail = "ordered with the fault content_failure".to_owned();
        return Some((ErrorCode(code), Some(detail)));
    }
    let rejection = content.rejection(user.channel(), is_open);
    rejection.map(|(code, problem)| (code, Some(problem)))
}
