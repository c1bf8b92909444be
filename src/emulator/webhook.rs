//! Delivering a message to the bot as Twilio does: the primary URL with its retries, the fallback URL, and the TwiML of
//! the first answer that can be used.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request and /docs/usage/webhooks/webhooks-connection-overrides.

use std::sync::Arc;

use http::Method;
use serde::Serialize;

use super::account::uuid;
use super::answer::Usable;
use super::document::{Document, Said, Verb};
use super::engine::Engine;
use super::fetching::Answered;
use super::links::{bare, resolve, split_userinfo};
use super::record::{Record, ShownMedia};
use super::send::{Draft, can_be_sent_to, most_files};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::twiml::MAX_MESSAGES;

/// Documents of one message (14106).
const MOST_DOCUMENTS: u32 = 50;

/// What came of a delivery.
#[derive(Clone, Serialize)]
pub(super) struct Delivered {
    pub(super) message_sid: String,
    pub(super) attempts: Vec<Attempt>,
    /// The last answer that was TwiML.
    twiml: Option<String>,
    /// What the phone got meanwhile.
    messages: Vec<Got>,
}

/// One HTTP request.
#[derive(Clone, Serialize)]
pub(super) struct Attempt {
    pub(super) url: String,
    pub(super) status: Option<u16>,
    pub(super) content_type: Option<String>,
    pub(super) ms: u64,
    pub(super) error_code: Option<u32>,
}

#[derive(Clone, Serialize)]
pub(super) struct Got {
    sid: String,
    body: String,
    media: Vec<ShownMedia>,
}

impl Engine {
    /// Delivers a message that was taken; to the end, whoever waits for it.
    pub(super) async fn deliver(self: &Arc<Self>, message: Record, is_repeat: bool) -> Delivered {
        let engine = self.clone();
        let delivery = async move {
            let (before, generation) = {
                let state = engine.state();
                (state.sent_to(&message.user), state.generation)
            };
            if !is_repeat {
                engine.keep_opt_outs(&message);
            }
            let mut delivery = Delivery {
                engine: engine.clone(),
                form: message
                    .params
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect(),
                message,
                token: uuid(),
                attempts: Vec::new(),
                twiml: None,
                documents: 0,
                generation,
            };
            delivery.run(is_repeat).await;
            if !is_repeat {
                engine.record_conversation(&delivery.message, &before);
            }
            let state = engine.state();
            let got = state.shown_since(&delivery.message, &before);
            Delivered {
                message_sid: delivery.message.sid.clone(),
                attempts: delivery.attempts,
                twiml: delivery.twiml,
                messages: got
                    .into_iter()
                    .map(|message| Got {
                        sid: message.sid.clone(),
                        body: message.body.clone(),
                        media: message.show_media(),
                    })
                    .collect(),
            }
        };
        tokio::spawn(delivery)
            .await
            .expect("a delivery does not panic")
    }
}

/// A message on its way to the bot.
pub(super) struct Delivery {
    pub(super) engine: Arc<Engine>,
    pub(super) message: Record,
    form: Form,
    /// The same for every try.
    pub(super) token: String,
    pub(super) attempts: Vec<Attempt>,
    twiml: Option<String>,
    documents: u32,
    /// Of what is remembered: when it changes, this has nobody to report to.
    generation: u64,
}

impl Delivery {
    async fn run(&mut self, is_repeat: bool) {
        let engine = self.engine.clone();
        let form = self.form.clone();
        let primary = engine.options.webhook.clone();
        let attempt = if is_repeat { "duplicate" } else { "primary" };
        let first = self.fetch(&primary, &Method::POST, &form, attempt).await;
        if let Ok(answered) = &first
            && matches!(answered.usable, Usable::Document(_))
        {
            self.twiml = Some(answered.text.clone());
        }
        // What a retry gets whose first answer did arrive: the phone has it already.
        if !(is_repeat && self.message.is_answered && first.is_ok()) {
            let failed = match first {
                Ok(answered) => self.execute(answered).await.err(),
                Err(useless) => Some((primary.clone(), useless.code)),
            };
            let is_answered = match failed {
                Some((url, code)) => self.fall_back(&url, code).await,
                None => true,
            };
            if let Some(message) = engine.state().message_mut(&self.message.sid) {
                message.is_answered |= is_answered;
            }
        }
        let duplicates = engine.state().faults.duplicate;
        for _ in 0..duplicates {
            // The same once more, as a retry whose first answer was lost would be; what it says is on the phone already.
            let _ = self
                .fetch(&primary, &Method::POST, &form, "duplicate")
                .await;
        }
    }

    /// Tells the debugger, and calls the fallback URL.
    async fn fall_back(&mut self, failed: &str, code: ErrorCode) -> bool {
        let engine = self.engine.clone();
        let failed = split_userinfo(&bare(failed)).0;
        engine.debug(code, None, Some(&self.message.sid), Some(&failed));
        let Some(fallback) = engine.options.fallback.clone() else {
            return false;
        };
        let form = self.form.clone();
        let code = code.to_string();
        let more = [("ErrorCode", code.as_str()), ("ErrorUrl", failed.as_str())];
        let form: Form = form.iter().chain(more).collect();
        let answered = self
            .fetch(&fallback, &Method::POST, &form, "fallback")
            .await;
        let failed = match answered {
            Ok(answered) => self.execute(answered).await,
            Err(useless) => Err((fallback.clone(), useless.code)),
        };
        if let Err((url, code)) = &failed {
            let url = split_userinfo(&bare(url)).0;
            engine.debug(*code, None, Some(&self.message.sid), Some(&url));
        }
        failed.is_ok()
    }

    /// Executes an answer. What fails to be fetched on the way is returned with its URL.
    async fn execute(&mut self, answered: Answered) -> Result<(), (String, ErrorCode)> {
        let mut next = Some(answered);
        let mut sent = 0;
        while let Some(answered) = next.take() {
            let document = match answered.usable {
                Usable::Nothing => return Ok(()),
                Usable::Text(body) => {
                    self.say(
                        Said {
                            body,
                            ..Said::default()
                        },
                        &answered.url,
                        &mut sent,
                    )
                    .await;
                    return Ok(());
                }
                Usable::Document(document) => document,
            };
            self.twiml = Some(answered.text);
            next = self
                .run_document(document, &answered.url, &mut sent)
                .await?;
        }
        Ok(())
    }

    /// Runs verbs until one leads elsewhere.
    async fn run_document(
        &mut self,
        document: Document,
        url: &str,
        sent: &mut usize,
    ) -> Result<Option<Answered>, (String, ErrorCode)> {
        let engine = self.engine.clone();
        for (code, detail) in &document.warnings {
            let place = bare(url);
            engine.debug(*code, Some(detail), Some(&self.message.sid), Some(&place));
        }
        for verb in document.verbs {
            let (target, method, form) = match verb {
                Verb::Message(said) => {
                    let action = said.action.clone();
                    let is_get = said.action_is_get;
                    let outcome = self.say(said, url, sent).await;
                    let (Some(action), Some((made, status))) = (action, outcome) else {
                        continue;
                    };
                    let form = self.form.clone();
                    let kept = form
                        .iter()
                        .filter(|(name, _)| !["MessageSid", "SmsSid"].contains(name));
                    let more = [
                        ("MessageSid", made.as_str()),
                        ("SmsSid", made.as_str()),
                        ("MessageStatus", status.as_str()),
                    ];
                    (action, is_get, kept.chain(more).collect())
                }
                Verb::Redirect { url, is_get } => (url, is_get, self.form.clone()),
            };
            self.documents += 1;
            let Some(target) = resolve(url, &target) else {
                return Err((url.to_owned(), ErrorCode(11100)));
            };
            if self.documents >= MOST_DOCUMENTS {
                engine.debug(
                    ErrorCode(14106),
                    None,
                    Some(&self.message.sid),
                    Some(&bare(&target)),
                );
                return Ok(None);
            }
            let method = if method { Method::GET } else { Method::POST };
            let fetched = self.fetch(&target, &method, &form, "redirect").await;
            return fetched.map(Some).map_err(|useless| (target, useless.code));
        }
        Ok(None)
    }

    /// Sends a reply; its SID and status, unless it cannot be sent.
    async fn say(&mut self, said: Said, url: &str, sent: &mut usize) -> Option<(String, String)> {
        let engine = self.engine.clone();
        let refuse = |code, detail: &str| {
            let place = bare(url);
            engine.debug(
                ErrorCode(code),
                Some(detail),
                Some(&self.message.sid),
                Some(&place),
            );
        };
        if *sent == MAX_MESSAGES {
            refuse(14109, "the rest is not sent");
            return None;
        }
        let from = said.from.unwrap_or_else(|| self.message.sender.clone());
        let to = said.to.unwrap_or_else(|| self.message.user.clone());
        if !engine.senders().contains(&from) {
            refuse(14108, "it is not a sender of this account");
            return None;
        }
        let user = Address::parse(to.as_str());
        if user.channel() != Address::parse(from.as_str()).channel() {
            refuse(14101, "its channel is not that of `from`");
            return None;
        }
        if !can_be_sent_to(&user) {
            refuse(14101, "it is no address");
            return None;
        }
        let length = said.body.encode_utf16().count();
        if length > 1600 {
            refuse(
                14103,
                &format!("{length} characters, of which 1600 may be sent"),
            );
            return None;
        }
        let media: Vec<String> = said
            .media
            .iter()
            .filter_map(|media| resolve(url, media))
            .collect();
        if media.len() != said.media.len() {
            refuse(14103, "a <Media> that is no URL");
            return None;
        }
        if said.body.trim().is_empty() && media.is_empty() {
            refuse(14103, "neither text nor media");
            return None;
        }
        let most = most_files(&user);
        if media.len() > most {
            refuse(
                14103,
                &format!("{} files, of which {most} may be sent", media.len()),
            );
            return None;
        }
        let callback = said.status_callback.as_deref();
        let status_callback = match callback.map(|callback| resolve(url, callback)) {
            Some(None) => {
                refuse(14105, "no URL");
                None
            }
            resolved => resolved.flatten(),
        };
        *sent += 1;
        // Everything was forgotten meanwhile.
        if engine.state().generation != self.generation {
            return None;
        }
        let draft = Draft {
            body: said.body,
            media,
            status_callback,
            in_reply_to: Some(self.message.sid.clone()),
            ..Draft::reply(from, to)
        };
        let message = engine.send_reply(draft).await;
        Some((message.sid, message.status.as_str().to_owned()))
    }
}
