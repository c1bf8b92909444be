//! Outbound messages and replies: from TwiML, from the REST API, and Twilio's own confirmations.

use std::sync::Arc;

use jiff::Timestamp;

use super::account::sid;
use super::engine::Engine;
use super::media;
use super::record::{Author, Direction, MediaRecord, Record, SharedLocation, TappedButton};
use super::state::Hosted;
use crate::address::{Address, Channel, Identity};
use crate::error_code::ErrorCode;
use crate::message::MessageStatus;

/// Maximum size of a media file on WhatsApp and RCS.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of a media file in an MMS.
const MAX_MMS_BYTES: usize = 5 * 1024 * 1024;

/// Returns whether an address can receive messages.
pub(super) fn can_be_sent_to(user: &Address) -> bool {
    let is = |identities: &[Identity]| identities.contains(&user.identity());
    match user.channel() {
        // At least seven digits. +15005550001 is the invalid number of Twilio's test credentials.
        Channel::Sms if user.identity() == Identity::Phone => {
            user.id().len() >= 8 && user.id() != "+15005550001"
        }
        Channel::Sms => is(&[Identity::ShortCode]),
        Channel::WhatsApp => is(&[Identity::Phone, Identity::BusinessScopedId]),
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
    pub(super) by: Author,
    pub(super) sender: String,
    pub(super) user: String,
    pub(super) body: String,
    pub(super) media: Vec<String>,
    pub(super) location: Option<SharedLocation>,
    pub(super) buttons: Vec<TappedButton>,
    pub(super) service: Option<String>,
    pub(super) status_callback: Option<String>,
    pub(super) status: MessageStatus,
    pub(super) send_at: Option<Timestamp>,
    pub(super) is_template: bool,
    /// SID of the inbound message, if this is a TwiML reply.
    pub(super) in_reply_to: Option<String>,
}

impl OutboundDraft {
    /// Creates an empty reply.
    pub(super) fn reply(sender: String, user: String) -> Self {
        Self {
            direction: Direction::Reply,
            by: Author::Bot,
            sender,
            user,
            body: String::new(),
            media: Vec::new(),
            location: None,
            buttons: Vec::new(),
            service: None,
            status_callback: None,
            status: MessageStatus::Queued,
            send_at: None,
            is_template: false,
            in_reply_to: None,
        }
    }
}

impl Engine {
    /// Sends a TwiML reply. When this returns, its media is fetched.
    pub(super) async fn send_reply(self: &Arc<Self>, draft: OutboundDraft) -> Record {
        let is_template = draft.is_template;
        let message = self.add_message(draft);
        // 14107 is about replies. Messages sent via the REST API do not count.
        if self.is_loop(&message) {
            let detail =
                "Twilio would fail further replies for 30 s; the emulator goes on sending them";
            self.debug(ErrorCode(14107), Some(detail), Some(&message.sid), None);
        }
        let generation = self.state().generation;
        let failed = self.prepare(&message.sid, is_template).await;
        // Before `progress`: a TwiML action reports the first status, not a later one.
        let now = self.state().message(&message.sid).cloned();
        self.progress(message.sid.clone(), failed, generation);
        now.unwrap_or(message)
    }

    /// Queues a message from the REST API. Media is fetched afterwards, and errors reach the bot as a status.
    pub(super) fn send_api(self: &Arc<Self>, draft: OutboundDraft) -> Record {
        let is_template = draft.is_template;
        let message = self.add_message(draft);
        let (engine, sid) = (self.clone(), message.sid.clone());
        let (send_at, generation) = (message.send_at, self.state().generation);
        tokio::spawn(async move {
            if let Some(at) = send_at {
                engine.clock.sleep_until(at).await;
                if !engine.leave_schedule(&sid, generation) {
                    return;
                }
            }
            let failed = engine.prepare(&sid, is_template).await;
            engine.progress(sid, failed, generation);
        });
        message
    }

    /// Sends a message of Twilio itself. It has no media, and neither opt-outs nor the window apply.
    pub(super) fn send_own(self: &Arc<Self>, sender: &str, user: &str, text: &str) {
        let draft = OutboundDraft {
            by: Author::Twilio,
            body: text.to_owned(),
            ..OutboundDraft::reply(sender.to_owned(), user.to_owned())
        };
        let message = self.add_message(draft);
        let generation = self.state().generation;
        self.progress(message.sid, None, generation);
    }

    fn add_message(&self, draft: OutboundDraft) -> Record {
        let now = self.now();
        let has_media = !draft.media.is_empty();
        let sid_of = sid(if has_media { "MM" } else { "SM" });
        let file = |url: String| MediaRecord {
            sid: sid("ME"),
            // A guess from the extension, until `prepare` has fetched the file.
            content_type: media::type_of(&url)
                .unwrap_or("application/octet-stream")
                .to_owned(),
            filename: None,
            url,
            is_here: false,
            at: now,
        };
        let message = Record {
            sid: sid_of,
            user: draft.user,
            sender: draft.sender,
            direction: draft.direction,
            by: draft.by,
            body: draft.body,
            media: draft.media.into_iter().map(file).collect(),
            location: draft.location,
            button: None,
            buttons: draft.buttons,
            status: draft.status,
            error_code: None,
            service: draft.service,
            status_callback: draft.status_callback,
            at: now,
            updated: now,
            sent: None,
            send_at: draft.send_at,
            is_unread: true,
            params: Vec::new(),
            profile_name: None,
            is_answered: false,
            in_reply_to: draft.in_reply_to,
        };
        self.state().add(message.clone());
        self.emit_message(&message);
        message
    }

    fn is_loop(&self, message: &Record) -> bool {
        let now = self.now();
        self.state()
            .count_reply(&message.sender, &message.user, now)
    }

    /// Marks a due scheduled message as accepted. Returns false if it was canceled, deleted or reset.
    fn leave_schedule(&self, sid: &str, generation: u64) -> bool {
        let now = self.now();
        let mut state = self.state();
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
        message.updated = now;
        true
    }

    /// Checks whether a message can be delivered, and fetches its media. Returns the error code if it cannot.
    async fn prepare(self: &Arc<Self>, sid: &str, is_template: bool) -> Option<ErrorCode> {
        let message = self.state().message(sid).cloned()?;
        if let Some(code) = self.obstacle(&message, is_template) {
            self.debug(code, None, Some(sid), None);
            return Some(code);
        }
        let is_sms = *Address::parse(message.user.as_str()).channel() == Channel::Sms;
        let most = if is_sms { MAX_MMS_BYTES } else { MAX_BYTES };
        for (index, file) in message.media.iter().enumerate() {
            match self.fetch_media(&file.url, most, Some(&message)).await {
                Ok((bytes, content_type)) => {
                    // Locked after the fetch: the lock must not be held across an await.
                    let mut state = self.state();
                    let content_type = content_type.unwrap_or_else(|| file.content_type.clone());
                    state.host(
                        &file.sid,
                        Hosted {
                            bytes: Arc::from(bytes),
                            content_type: content_type.clone(),
                        },
                    );
                    if let Some(message) = state.message_mut(sid) {
                        message.media[index].content_type = content_type;
                        message.media[index].is_here = true;
                        let message = message.clone();
                        drop(state);
                        self.emit_message(&message);
                    }
                }
                Err(media::FetchError::TooLarge) => {
                    self.debug(ErrorCode(11751), None, Some(sid), Some(&file.url));
                    return Some(ErrorCode(11751));
                }
                // Not a fault of the bot: this machine may be offline, and Twilio could reach the host. A loopback URL
                // must work.
                Err(media::FetchError::Unreachable) if !media::is_loopback(&file.url) => {}
                Err(error) => {
                    let detail = error.to_string();
                    self.debug(ErrorCode(63019), Some(&detail), Some(sid), Some(&file.url));
                    return Some(ErrorCode(63019));
                }
            }
        }
        None
    }

    /// Returns the error code of an opt-out (21610) or a closed window (63016).
    fn obstacle(&self, message: &Record, is_template: bool) -> Option<ErrorCode> {
        if message.by == Author::Twilio {
            return None;
        }
        let now = self.now();
        let state = self.state();
        let pair = (message.sender.clone(), message.user.clone());
        if state.blocked.contains(&pair) {
            return Some(ErrorCode(21610));
        }
        let is_whatsapp = *Address::parse(message.user.as_str()).channel() == Channel::WhatsApp;
        let is_closed = is_whatsapp && !state.window_is_open(&message.sender, &message.user, now);
        (is_closed && !is_template).then_some(ErrorCode(63016))
    }
}
