//! Twilio's calls to a server: webhooks with their retry and their fallback, and status callbacks.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Method;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use replyhook::twiml::{MAX_BYTES, MAX_MESSAGES};

use super::FakeTwilio;
use super::phone::TwimlMessage;
use crate::support::{HttpResponse, ORIGIN, Webhook, wire};

/// Twilio's connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Twilio's response timeout.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Twilio's behavior after a failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Sends the same request once more.
    pub retry: bool,
    /// Then calls the fallback URL once.
    pub fallback: bool,
}

impl Policy {
    /// Gives up immediately.
    pub const NEITHER: Self = Self::new(false, false);
    pub const RETRY: Self = Self::new(true, false);
    pub const FALLBACK: Self = Self::new(false, true);
    pub const BOTH: Self = Self::new(true, true);

    pub const fn new(retry: bool, fallback: bool) -> Self {
        Self { retry, fallback }
    }
}

/// Result of delivering a message.
#[derive(Debug)]
pub struct Delivery {
    pub attempts: Vec<Attempt>,
}

/// One request to the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    pub target: String,
    /// `None` without a complete response.
    pub status: Option<u16>,
    /// True if Twilio could use the response, and executed it.
    pub usable: bool,
}

impl Delivery {
    /// Returns true if Twilio got a usable response. Its messages are on the phone then.
    pub fn acknowledged(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.usable)
    }
}

impl FakeTwilio {
    /// Delivers a user's message as Twilio does, and executes only the first usable response.
    ///
    /// `server` returns the address for each attempt, and may wait until a server runs. `None` is a refused
    /// connection. Another call for the same `MessageSid` is another delivery, and its response is executed too.
    pub fn deliver(
        &self,
        server: impl Fn() -> Option<SocketAddr>,
        webhook: &Webhook,
        policy: Policy,
    ) -> Delivery {
        self.inner.lock().receive(&webhook.form);
        let mut calls = vec![self.with_idempotency_token(webhook)];
        if policy.retry {
            calls.push(calls[0].clone());
        }
        if policy.fallback {
            calls.push(self.with_idempotency_token(&fallback(webhook)));
        }
        let mut attempts = Vec::new();
        for call in calls {
            let answer = server().and_then(|address| exchange(address, &call.raw(ORIGIN)));
            let usable = answer
                .as_ref()
                .is_some_and(|answer| self.execute(&call, answer));
            attempts.push(Attempt {
                target: call.target,
                status: answer.map(|answer| answer.status),
                usable,
            });
            if usable {
                break;
            }
        }
        Delivery { attempts }
    }

    /// Shows the messages of a response on the phone. Returns false if Twilio could not use the response.
    ///
    /// `<Redirect>` and `action` are not followed.
    pub fn execute(&self, webhook: &Webhook, answer: &HttpResponse) -> bool {
        let Some(messages) = parse_messages(answer) else {
            return false;
        };
        let mut state = self.inner.lock();
        state.receive(&webhook.form);
        for message in messages.into_iter().take(MAX_MESSAGES) {
            state.reply(&webhook.form, message);
        }
        drop(state);
        self.inner.changed.notify_all();
        true
    }

    /// Sends a status to the `StatusCallback` of a message. Returns `None` without a response.
    pub fn status(
        &self,
        server: SocketAddr,
        sid: &str,
        status: &str,
        error_code: Option<u32>,
    ) -> Option<HttpResponse> {
        let callback = self.status_webhook(sid, status, error_code);
        exchange(server, &callback.raw(ORIGIN))
    }

    /// Creates a status callback without sending it. The REST API returns the status from now on.
    pub fn status_webhook(&self, sid: &str, status: &str, error_code: Option<u32>) -> Webhook {
        let mut state = self.inner.lock();
        let mut messages = state.messages.iter_mut();
        let message = messages.find(|message| message.sid == sid);
        let message = message.unwrap_or_else(|| panic!("there is no message {sid}"));
        status.clone_into(&mut message.status);
        message.error_code = error_code;
        let url = message.status_callback.as_deref();
        let target = url.and_then(|url| url.strip_prefix(ORIGIN));
        let target = target.unwrap_or_else(|| panic!("{sid} is reported to {url:?}"));
        let webhook = Webhook::form(
            target,
            &[
                ("MessageSid", sid),
                ("SmsSid", sid),
                ("AccountSid", &message.account),
                ("MessageStatus", status),
                ("SmsStatus", status),
                ("From", &message.from),
                ("To", &message.to),
                ("ApiVersion", "2010-04-01"),
            ],
        );
        let more = [
            ("MessagingServiceSid", message.service.clone()),
            ("ErrorCode", error_code.map(|code| code.to_string())),
            (
                "ChannelPrefix",
                message
                    .to
                    .split_once(':')
                    .map(|(channel, _)| channel.to_owned()),
            ),
        ];
        more.iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .fold(webhook, |webhook, (name, value)| webhook.with(name, value))
    }

    fn with_idempotency_token(&self, webhook: &Webhook) -> Webhook {
        let number = self.inner.lock().number();
        let token = format!("00000000-0000-4000-8000-{number:012x}");
        webhook.clone().header("I-Twilio-Idempotency-Token", &token)
    }
}

/// Returns the same message for the fallback URL, signed for that URL.
fn fallback(webhook: &Webhook) -> Webhook {
    let failed = format!("{ORIGIN}{}", webhook.target);
    let call = Webhook {
        method: Method::POST,
        body: None,
        content_type: Some("application/x-www-form-urlencoded".to_owned()),
        signed_url: None,
        signature: None,
        ..webhook.clone()
    };
    call.to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", &failed)
}

/// Sends a request on a new connection. Returns `None` if the connection is refused or interrupted, or times out.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<HttpResponse> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).ok()?;
    // The server may have responded and closed before it has read everything.
    let _ = stream.write_all(bytes);
    wire::read_response(&mut stream)
}

/// Returns the messages of a response. `None` if Twilio treats the response as a failure.
fn parse_messages(answer: &HttpResponse) -> Option<Vec<TwimlMessage>> {
    if answer.status != 200 || answer.body.len() > MAX_BYTES {
        return None;
    }
    let content_type = answer.header("content-type")?;
    match content_type.split(';').next().unwrap_or_default().trim() {
        "text/xml" => parse_twiml(&answer.body),
        // Twilio sends plain text to the user unchanged, which no bot intends.
        "text/plain" => Some(vec![TwimlMessage {
            body: answer.body.clone(),
            ..TwimlMessage::default()
        }]),
        _ => None,
    }
}

/// Returns the `<Message>`s of a document. `None` if it is not well-formed or not a `<Response>`.
fn parse_twiml(document: &str) -> Option<Vec<TwimlMessage>> {
    if !document.starts_with('<') || !document.chars().all(is_xml) {
        return None;
    }
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let mut messages: Vec<TwimlMessage> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut has_root = false;
    // In a message with nouns, Twilio ignores the text between them.
    let mut has_nouns = false;
    loop {
        let text = match reader.read_event().ok()? {
            Event::Start(start) => {
                let name = start.name().as_ref().to_owned();
                let path: Vec<_> = open.iter().map(String::as_str).collect();
                match (path.as_slice(), name.as_str()) {
                    ([], "Response") if !has_root => has_root = true,
                    ([], _) => return None,
                    (["Response"], "Message") => {
                        messages.push(message_with_attributes(&start)?);
                        has_nouns = false;
                    }
                    (["Response", "Message"], "Body" | "Media") => {
                        let message = messages.last_mut()?;
                        if !std::mem::replace(&mut has_nouns, true) {
                            message.body.clear();
                        }
                        if name == "Media" {
                            message.media.push(String::new());
                        }
                    }
                    _ => {}
                }
                open.push(name);
                continue;
            }
            Event::End(_) => {
                open.pop();
                continue;
            }
            Event::Eof => return (has_root && open.is_empty()).then_some(messages),
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                Some(c) => is_xml(c).then(|| c.to_string())?,
                None => quick_xml::escape::resolve_xml_entity(&reference)?.to_owned(),
            },
            _ => continue,
        };
        let path: Vec<_> = open.iter().map(String::as_str).collect();
        match path.as_slice() {
            [] if !text.trim().is_empty() => return None,
            ["Response", "Message"] if !has_nouns => messages.last_mut()?.body += &text,
            ["Response", "Message", "Body"] => messages.last_mut()?.body += &text,
            ["Response", "Message", "Media"] => *messages.last_mut()?.media.last_mut()? += &text,
            _ => {}
        }
    }
}

fn message_with_attributes(start: &BytesStart<'_>) -> Option<TwimlMessage> {
    let mut message = TwimlMessage::default();
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
        match attribute.key.as_ref() {
            "to" => message.to = Some(value.into_owned()),
            "from" => message.from = Some(value.into_owned()),
            "statusCallback" => message.status_callback = Some(value.into_owned()),
            _ => {}
        }
    }
    Some(message)
}

/// Returns true for a character that XML 1.0 allows.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}
