//! Delivery of an inbound message to the bot: primary URL with retries, then fallback URL. Executes the first usable
//! response.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request and /docs/usage/webhooks/webhooks-connection-overrides.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde::Serialize;
use serde_json::Value;

use super::engine::Engine;
use super::links::{display_url, resolve};
use super::opt_out::apply_opt_out_keyword;
use super::record::{MediaView, Record};
use super::response_check::CheckedResponse;
use super::send::{OutboundDraft, is_valid_recipient, max_files, send_reply};
use super::webhook_client::{Attempt, FollowedResponse, WebhookClient};
use replyhook_core::address::Address;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;
use replyhook_core::twiml::MAX_MESSAGES;
use replyhook_core::twiml::interpreter::{TwimlMessage, TwimlVerdict, Verb};

// Twilio fetches at most 50 TwiML documents for one message (14106).
const MAX_DOCUMENTS: u32 = 50;
/// Interval of checks whether the bot has pending messages.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
// Longer than the default of `handler.timeout_ms`, two minutes.
const FLUSH_TIMEOUT: Duration = Duration::from_mins(3);
/// Maximum time to wait for messages that the bot sends via the REST API right after its response.
const SENDING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time within which the app reports that a message which the REST API has refused is not sent again.
const REFUSAL_REPORT_TIME: Duration = Duration::from_millis(250);
/// Interval of checks for them.
const SENDING_INTERVAL: Duration = Duration::from_millis(10);

/// Result of a delivery: the response of `POST /_emulator/messages`.
#[derive(Clone, Serialize)]
pub(super) struct DeliveryReport {
    pub(super) message_sid: String,
    pub(super) attempts: Vec<Attempt>,
    /// The last TwiML document received.
    twiml: Option<String>,
    /// Messages that the phone received during the delivery.
    messages: Vec<DeliveredMessage>,
    /// The reason why the handler failed, if the app has reported one.
    failure: Option<String>,
}

#[derive(Clone, Serialize)]
pub(super) struct DeliveredMessage {
    sid: String,
    body: String,
    media: Vec<MediaView>,
    content: Option<Value>,
}

/// Delivers an inbound message to the bot. Without a message on the phone, waits up to `wait` for one: a server in another
/// process does not say what it is still sending.
pub(super) async fn deliver(
    engine: &Arc<Engine>,
    message: Record,
    is_redelivery: bool,
    wait: Duration,
) -> DeliveryReport {
    let engine = engine.clone();
    let delivery = async move {
        // Under one lock: a reset between the two would make old messages look new.
        let (earlier_sids, generation, refused_calls) = {
            let state = engine.state();
            let earlier_sids = state.outbound_sids(&message.user);
            (earlier_sids, state.generation, state.refused_messages)
        };
        if !is_redelivery {
            apply_opt_out_keyword(&engine, &message);
        }
        let mut delivery = Delivery {
            engine: engine.clone(),
            client: WebhookClient::new(engine.clone(), &message),
            form: message
                .params
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            message,
            twiml: None,
            document_count: 0,
            generation,
        };
        delivery.run(is_redelivery).await;
        let sent = wait_until_sent(&engine, &delivery.message, refused_calls);
        // After the timeout, report what there is.
        let _ = tokio::time::timeout(SENDING_TIMEOUT, sent).await;
        let received = wait_for_message(&engine, &delivery.message, &earlier_sids);
        let _ = tokio::time::timeout(wait, received).await;
        if !is_redelivery {
            record_conversation(&engine, &delivery.message, &earlier_sids);
        }
        let state = engine.state();
        let received = state.received_since(&delivery.message, &earlier_sids);
        let stored = state.message(&delivery.message.sid);
        DeliveryReport {
            failure: stored.and_then(|message| message.failure.clone()),
            message_sid: delivery.message.sid.clone(),
            attempts: delivery.client.attempts,
            twiml: delivery.twiml,
            messages: received
                .into_iter()
                .map(|message| DeliveredMessage {
                    sid: message.sid.clone(),
                    body: message.body.clone(),
                    media: message.media_views(),
                    content: message.content_view(),
                })
                .collect(),
        }
    };
    // A task of its own: axum drops this future when the client of the control API disconnects, and Twilio would
    // deliver the message all the same.
    tokio::spawn(delivery)
        .await
        .expect("a delivery does not panic")
}

/// Waits until the app has sent the messages of its reply that TwiML could not carry, or the REST API has refused one.
// Twilio accepts such a message a moment after the empty response. A refused one may be tried again much later.
async fn wait_until_sent(engine: &Engine, message: &Record, refused_before: u64) {
    let Some(app) = engine.app() else { return };
    let mut refused_at: Option<Instant> = None;
    while app.is_sending(message.sid.clone()).await {
        if engine.state().refused_messages != refused_before {
            // The app reports a refusal that is final a moment later.
            let refused_at = refused_at.get_or_insert_with(Instant::now);
            if refused_at.elapsed() > REFUSAL_REPORT_TIME {
                return;
            }
        }
        tokio::time::sleep(SENDING_INTERVAL).await;
    }
}

/// Waits until the phone has received a message.
async fn wait_for_message(engine: &Engine, message: &Record, earlier_sids: &HashSet<String>) {
    while engine
        .state()
        .received_since(message, earlier_sids)
        .is_empty()
    {
        tokio::time::sleep(SENDING_INTERVAL).await;
    }
}

/// Records a message in the background, when the bot has no pending messages left.
fn record_conversation(engine: &Arc<Engine>, message: &Record, earlier_sids: &HashSet<String>) {
    if engine.recording.is_none() {
        return;
    }
    let (engine, message) = (engine.clone(), message.clone());
    let earlier_sids = earlier_sids.clone();
    tokio::spawn(async move {
        // After the timeout, record what there is.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, wait_until_idle(&engine, &message)).await;
        let replies: Vec<_> = {
            let state = engine.state();
            state
                .received_since(&message, &earlier_sids)
                .into_iter()
                .map(|reply| (reply.sid.clone(), reply.body.clone()))
                .collect()
        };
        // Collected above, so that the engine's lock is not held while writing.
        let write_task = tokio::task::spawn_blocking(move || {
            let recording = engine.recording.as_ref();
            recording.map_or(Ok(()), |recording| recording.write(&message, &replies))
        });
        if let Ok(Err(error)) = write_task.await {
            tracing::error!(%error, "could not record a message");
        }
    });
}

/// Waits until the app has no pending messages of this user.
async fn wait_until_idle(engine: &Engine, message: &Record) {
    // Another kind of server does not report pending messages, so its late replies may be missing.
    let Some(app) = engine.app() else { return };
    loop {
        let (user, sender) = (message.user.clone(), message.sender.clone());
        let state = app.state(user, sender).await;
        if state["pending"].as_u64().unwrap_or_default() == 0 {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// State of one delivery.
struct Delivery {
    engine: Arc<Engine>,
    client: WebhookClient,
    message: Record,
    form: FormParams,
    twiml: Option<String>,
    document_count: u32,
    /// [`EmulatorState::generation`](super::state::EmulatorState::generation) at the start. Replies after a reset are
    /// discarded.
    generation: u64,
}

impl Delivery {
    async fn run(&mut self, is_redelivery: bool) {
        let engine = self.engine.clone();
        let primary = engine.options.webhook.clone();
        let attempt = if is_redelivery {
            "duplicate"
        } else {
            "primary"
        };
        let first = self
            .client
            .fetch(&primary, &Method::POST, &self.form, attempt)
            .await;
        if let Ok(response) = &first
            && matches!(response.content, CheckedResponse::Document(_))
        {
            self.twiml = Some(response.text.clone());
        }
        // On a redelivery, the phone has the reply already if the first response was executed. Execute this one only if
        // it was not.
        if !(is_redelivery && self.message.has_executed_response && first.is_ok()) {
            let failure = match first {
                Ok(response) => self.execute(response).await.err(),
                Err(unusable) => Some((primary.clone(), unusable.code)),
            };
            let is_executed = match failure {
                Some((url, code)) => self.call_fallback(&url, code).await,
                None => true,
            };
            if let Some(message) = engine.state().message_mut(&self.message.sid) {
                message.has_executed_response |= is_executed;
            }
        }
        let duplicates = engine.state().faults.duplicate;
        for _ in 0..duplicates {
            // Not executed: the phone has the reply of the first delivery. A failed duplicate calls no fallback either.
            let _ = self
                .client
                .fetch(&primary, &Method::POST, &self.form, "duplicate")
                .await;
        }
    }

    /// Adds the error to the debugger and calls the fallback URL. Returns whether its response was executed.
    async fn call_fallback(&mut self, failed_url: &str, code: ErrorCode) -> bool {
        let engine = self.engine.clone();
        // `ErrorUrl` must not contain the password.
        let failed_url = display_url(failed_url);
        engine.add_debugger_entry(code, None, Some(&self.message.sid), Some(&failed_url));
        let Some(fallback) = engine.options.fallback.clone() else {
            return false;
        };
        let form = self.form.clone();
        let code = code.to_string();
        let error_params = [
            ("ErrorCode", code.as_str()),
            ("ErrorUrl", failed_url.as_str()),
        ];
        let form: FormParams = form.iter().chain(error_params).collect();
        let result = self
            .client
            .fetch(&fallback, &Method::POST, &form, "fallback")
            .await;
        let outcome = match result {
            Ok(response) => self.execute(response).await,
            Err(unusable) => Err((fallback.clone(), unusable.code)),
        };
        if let Err((url, code)) = &outcome {
            engine.add_debugger_entry(*code, None, Some(&self.message.sid), Some(url));
        }
        outcome.is_ok()
    }

    /// Executes a response and the documents that it redirects to. Returns the URL and error code of a failed request.
    async fn execute(&mut self, response: FollowedResponse) -> Result<(), (String, ErrorCode)> {
        let mut next = Some(response);
        // Counts over all documents: Twilio's limit of messages is per inbound message (14109).
        let mut sent_count = 0;
        while let Some(response) = next.take() {
            let document = match response.content {
                CheckedResponse::NoReply => return Ok(()),
                CheckedResponse::Text(body) => {
                    self.send_message(
                        TwimlMessage {
                            body,
                            ..TwimlMessage::default()
                        },
                        &response.url,
                        &mut sent_count,
                    )
                    .await;
                    return Ok(());
                }
                CheckedResponse::Document(document) => document,
            };
            self.twiml = Some(response.text);
            next = self
                .run_document(document, &response.url, &mut sent_count)
                .await?;
        }
        Ok(())
    }

    /// Executes verbs until one continues with another document, and returns that document. Later verbs do not run.
    async fn run_document(
        &mut self,
        document: TwimlVerdict,
        url: &str,
        sent_count: &mut usize,
    ) -> Result<Option<FollowedResponse>, (String, ErrorCode)> {
        let engine = self.engine.clone();
        for (code, detail) in &document.warnings {
            engine.add_debugger_entry(*code, Some(detail), Some(&self.message.sid), Some(url));
        }
        for verb in document.verbs {
            let (target, is_get, form) = match verb {
                Verb::Message(message) => {
                    let action = message.action.clone();
                    let is_get = message.action_is_get;
                    let outcome = self.send_message(message, url, sent_count).await;
                    // Call the action only if the message was sent: it reports the message's SID and status.
                    let (Some(action), Some((sid, status))) = (action, outcome) else {
                        continue;
                    };
                    let form = self.form.clone();
                    let other_params = form
                        .iter()
                        .filter(|(name, _)| !["MessageSid", "SmsSid"].contains(name));
                    let action_params = [
                        ("MessageSid", sid.as_str()),
                        ("SmsSid", sid.as_str()),
                        ("MessageStatus", status.as_str()),
                    ];
                    (action, is_get, other_params.chain(action_params).collect())
                }
                Verb::Redirect { url, is_get } => (url, is_get, self.form.clone()),
            };
            self.document_count += 1;
            let Some(target) = resolve(url, &target) else {
                return Err((url.to_owned(), ErrorCode(11100)));
            };
            if self.document_count >= MAX_DOCUMENTS {
                engine.add_debugger_entry(
                    ErrorCode(14106),
                    None,
                    Some(&self.message.sid),
                    Some(&target),
                );
                return Ok(None);
            }
            let method = if is_get { Method::GET } else { Method::POST };
            let result = self.client.fetch(&target, &method, &form, "redirect").await;
            return result.map(Some).map_err(|unusable| (target, unusable.code));
        }
        Ok(None)
    }

    /// Sends a `<Message>`. Returns its SID and status, or `None` if it is invalid, which adds a debugger entry.
    async fn send_message(
        &mut self,
        twiml: TwimlMessage,
        url: &str,
        sent_count: &mut usize,
    ) -> Option<(String, String)> {
        let engine = self.engine.clone();
        let report = |code, detail: &str| {
            engine.add_debugger_entry(
                ErrorCode(code),
                Some(detail),
                Some(&self.message.sid),
                Some(url),
            );
        };
        if *sent_count == MAX_MESSAGES {
            report(14109, "this one is not sent");
            return None;
        }
        let from = twiml.from.unwrap_or_else(|| self.message.sender.clone());
        let to = twiml.to.unwrap_or_else(|| self.message.user.clone());
        if !engine.senders().contains(&from) {
            report(14108, "`from` is not a sender of this account");
            return None;
        }
        let user = Address::parse(to.as_str());
        if user.channel() != Address::parse(from.as_str()).channel() {
            report(14101, "`to` and `from` are on different channels");
            return None;
        }
        if !is_valid_recipient(&user) {
            report(14101, "`to` is not a valid address");
            return None;
        }
        // Twilio does not document its unit of length. UTF-16 code units are the strictest reading.
        let length = twiml.body.encode_utf16().count();
        if length > 1600 {
            report(
                14103,
                &format!("{length} characters; at most 1600 are allowed"),
            );
            return None;
        }
        let media: Vec<String> = twiml
            .media
            .iter()
            .filter_map(|media| resolve(url, media))
            .collect();
        if media.len() != twiml.media.len() {
            report(14103, "a <Media> is not a valid URL");
            return None;
        }
        if twiml.body.trim().is_empty() && media.is_empty() {
            report(14103, "neither text nor media");
            return None;
        }
        let max_media = max_files(&user);
        if media.len() > max_media {
            report(
                14103,
                &format!(
                    "{} media files; at most {max_media} are allowed",
                    media.len()
                ),
            );
            return None;
        }
        let callback = twiml.status_callback.as_deref();
        let status_callback = match callback.map(|callback| resolve(url, callback)) {
            // A warning only: the message is sent without status callbacks.
            Some(None) => {
                report(14105, "not a valid URL");
                None
            }
            resolved => resolved.flatten(),
        };
        *sent_count += 1;
        // Reset since the delivery started: the conversation that this replies to is deleted.
        if engine.state().generation != self.generation {
            return None;
        }
        let draft = OutboundDraft {
            body: twiml.body,
            media,
            status_callback,
            in_reply_to: Some(self.message.sid.clone()),
            ..OutboundDraft::reply(from, to)
        };
        let message = send_reply(&engine, draft).await;
        Some((message.sid, message.status.as_str().to_owned()))
    }
}
