//! Delivering a message to the bot as Twilio does: the primary URL with its retries, the fallback URL, and the TwiML of
//! the first answer that can be used.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request and /docs/usage/webhooks/webhooks-connection-overrides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, COOKIE, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::SignedDuration;
use reqwest::Url;
use serde::Serialize;

use super::account::uuid;
use super::answer::{Usable, judge};
use super::call::Call;
use super::document::{Document, Said, Verb};
use super::engine::Engine;
use super::outgoing::{Incoming, NoAnswer, Outgoing, Times, send};
use super::overrides::Overrides;
use super::record::{
    Exchange, ExchangeRequest, ExchangeResponse, Kind, Record, ShownMedia, Signed,
};
use super::send::Draft;
use super::state::Cookies;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::twiml::MAX_MESSAGES;

/// Documents of one message (14106).
const MOST_DOCUMENTS: u32 = 50;
/// HTTP redirects of one call (11215).
const MOST_HOPS: usize = 10;
/// Cookies are forgotten after so long without traffic.
const COOKIES: SignedDuration = SignedDuration::from_hours(4);

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
    url: String,
    status: Option<u16>,
    content_type: Option<String>,
    ms: u64,
    error_code: Option<u32>,
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
            let before = engine.state().sent_to(&message.user);
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
            };
            delivery.run(is_repeat).await;
            let state = engine.state();
            let got = state.shown_since(&delivery.message.user, &before);
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

struct Delivery {
    engine: Arc<Engine>,
    message: Record,
    form: Form,
    /// The same for every try.
    token: String,
    attempts: Vec<Attempt>,
    twiml: Option<String>,
    documents: u32,
}

/// Why a call was of no use.
struct Useless {
    code: ErrorCode,
    may_repeat: bool,
}

/// One URL that is called for a document.
struct Target<'a> {
    url: &'a str,
    method: Method,
    form: &'a Form,
    attempt: &'static str,
}

/// An answer, and where it came from: what relative URLs in it lead on from.
struct Answered {
    usable: Usable,
    url: String,
    text: String,
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
        let failed = bare(failed);
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
            let url = bare(url);
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
                    let (Some(action), Some((sid, status))) = (action, outcome) else {
                        continue;
                    };
                    let form = self.form.clone();
                    let kept = form
                        .iter()
                        .filter(|(name, _)| !["MessageSid", "SmsSid"].contains(name));
                    let more = [
                        ("MessageSid", sid.as_str()),
                        ("SmsSid", sid.as_str()),
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
        if channel(&to) != channel(&from) {
            refuse(14101, "its channel is not that of `from`");
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
        if media.len() > 10 {
            refuse(14103, "more than 10 files");
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
        let draft = Draft {
            body: said.body,
            media,
            status_callback,
            ..Draft::reply(from, to)
        };
        let message = engine.send_reply(draft).await;
        Some((message.sid, message.status.as_str().to_owned()))
    }

    /// Calls a URL until it answers usably, as often as its fragment allows.
    async fn fetch(
        &mut self,
        url: &str,
        method: &Method,
        form: &Form,
        attempt: &'static str,
    ) -> Result<Answered, Useless> {
        let engine = self.engine.clone();
        let (mut overrides, wrong) = Overrides::parse(url);
        for (code, detail) in &wrong {
            engine.debug(*code, Some(detail), Some(&self.message.sid), Some(url));
        }
        if let Some(words) = &engine.state().faults.retry {
            overrides.retry_on(words);
        }
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let left = overrides.times.total.saturating_sub(started.elapsed());
            let times = Times {
                total: left,
                read: overrides.times.read.min(left),
                connect: overrides.times.connect.min(left),
            };
            let target = Target {
                url,
                method: method.clone(),
                form,
                attempt: if tries == 0 { attempt } else { "retry" },
            };
            let useless = match self.hops(target, times, &overrides).await {
                Ok(answered) => return Ok(answered),
                Err(useless) => useless,
            };
            if !useless.may_repeat || tries == overrides.retries {
                return Err(useless);
            }
            if started.elapsed() >= overrides.times.total {
                return Err(Useless {
                    code: ErrorCode(11203),
                    ..useless
                });
            }
            tries += 1;
        }
    }

    /// One call, and those that its redirects lead to.
    async fn hops(
        &mut self,
        target: Target<'_>,
        times: Times,
        overrides: &Overrides,
    ) -> Result<Answered, Useless> {
        let started = Instant::now();
        let mut url = bare(target.url);
        let mut method = target.method;
        let nothing = Form::default();
        let mut form = target.form;
        for hop in 0..MOST_HOPS {
            let left = Times {
                total: times.total.saturating_sub(started.elapsed()),
                ..times
            };
            let attempt = if hop == 0 { target.attempt } else { "redirect" };
            let answer = self.call(&url, &method, form, left, attempt).await;
            let answer = answer.map_err(|failed| Useless {
                code: failed.code,
                may_repeat: overrides.retries_failure(&failed),
            })?;
            let location = answer.headers.get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            if let (300..400, Some(location)) = (answer.status, location) {
                url = resolve(&url, location).ok_or(Useless {
                    code: ErrorCode(11100),
                    may_repeat: false,
                })?;
                // As browsers do, and with them Twilio: the parameters are lost.
                if matches!(answer.status, 301..=303) {
                    method = Method::GET;
                    form = &nothing;
                }
                continue;
            }
            let judged = judge(
                answer.status,
                answer.content_type(),
                answer.is_chunked(),
                &answer.body,
            );
            return match judged {
                Ok(usable) => Ok(Answered {
                    usable,
                    text: String::from_utf8_lossy(&answer.body).into_owned(),
                    url,
                }),
                Err(code) => Err(Useless {
                    code,
                    may_repeat: overrides.retries_status(answer.status),
                }),
            };
        }
        Err(Useless {
            code: ErrorCode(11215),
            may_repeat: false,
        })
    }

    /// One HTTP request, repeated with a password where the server asks for one and the URL has it.
    async fn call(
        &mut self,
        url: &str,
        method: &Method,
        form: &Form,
        times: Times,
        attempt: &'static str,
    ) -> Result<Incoming, NoAnswer> {
        let (plain, login) = split_userinfo(url);
        let mut headers = self.headers(&plain);
        let first = self
            .exchange(&plain, method, form, headers.clone(), times, attempt)
            .await?;
        let asks = first.status == 401 && first.headers.contains_key(WWW_AUTHENTICATE);
        let Some(login) = login.filter(|_| asks) else {
            return Ok(first);
        };
        if let Ok(value) = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))) {
            headers.insert(AUTHORIZATION, value);
        }
        self.exchange(&plain, method, form, headers, times, attempt)
            .await
    }

    async fn exchange(
        &mut self,
        url: &str,
        method: &Method,
        form: &Form,
        headers: HeaderMap,
        times: Times,
        attempt: &'static str,
    ) -> Result<Incoming, NoAnswer> {
        let engine = self.engine.clone();
        let call = Call {
            url: url.to_owned(),
            signed_url: None,
            method: method.clone(),
            form: form.clone(),
            headers,
        };
        let (delay, drops) = {
            let state = engine.state();
            let is_primary = matches!(attempt, "primary" | "retry" | "duplicate");
            let delay = Duration::from_millis(state.faults.delay_ms);
            (delay, state.faults.drop_connection && is_primary)
        };
        let (recorded, ms, mut answer) = engine.call(&call, times, delay).await;
        if drops {
            answer = Err(NoAnswer::broken_off());
        }
        if let Ok(answer) = &answer {
            self.keep_cookies(url, &answer.headers);
        }
        let judged = match &answer {
            Ok(answer) if (300..400).contains(&answer.status) => None,
            Ok(answer) => judge(
                answer.status,
                answer.content_type(),
                answer.is_chunked(),
                &answer.body,
            )
            .err(),
            Err(failed) => Some(failed.code),
        };
        self.attempts.push(Attempt {
            url: url.to_owned(),
            status: answer.as_ref().ok().map(|answer| answer.status),
            content_type: answer
                .as_ref()
                .ok()
                .and_then(|answer| answer.content_type().map(str::to_owned)),
            ms,
            error_code: judged.map(|code| code.0),
        });
        engine.record(Exchange {
            message_sid: Some(self.message.sid.clone()),
            user: Some(self.message.user.clone()),
            error_code: judged.map(|code| code.0),
            attempt: Some(attempt),
            response: if drops {
                None
            } else {
                recorded.response.clone()
            },
            ..recorded
        });
        answer
    }

    fn headers(&self, url: &str) -> HeaderMap {
        let mut headers = webhook_headers(url, &self.token);
        let pair = self.cookie_key(url);
        let now = self.engine.now();
        let mut state = self.engine.state();
        if let Some(cookies) = state.cookies.get_mut(&pair) {
            if now.duration_since(cookies.used) < COOKIES {
                cookies.used = now;
                let values: Vec<_> = cookies
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                if let Ok(value) = HeaderValue::try_from(values.join("; ")) {
                    headers.insert(COOKIE, value);
                }
            } else {
                state.cookies.remove(&pair);
            }
        }
        headers
    }

    fn keep_cookies(&self, url: &str, headers: &HeaderMap) {
        let now = self.engine.now();
        let mut state = self.engine.state();
        for cookie in headers.get_all(SET_COOKIE) {
            let text = cookie.to_str().unwrap_or_default();
            let Some((name, value)) = text.split(';').next().and_then(|c| c.split_once('=')) else {
                continue;
            };
            let cookies = state
                .cookies
                .entry(self.cookie_key(url))
                .or_insert_with(|| Cookies {
                    values: std::collections::BTreeMap::default(),
                    used: now,
                });
            cookies.used = now;
            cookies
                .values
                .insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }

    fn cookie_key(&self, url: &str) -> (String, String, String) {
        let host = Url::parse(url).ok();
        let host = host.and_then(|url| url.host_str().map(str::to_owned));
        (
            self.message.user.clone(),
            self.message.sender.clone(),
            host.unwrap_or_default(),
        )
    }
}

impl Engine {
    /// Calls once, and describes the call. `delay` is how much later its answer comes.
    pub(super) async fn call(
        &self,
        call: &Call,
        times: Times,
        delay: Duration,
    ) -> (Exchange, u64, Result<Incoming, NoAnswer>) {
        let at = self.now();
        let outgoing = call
            .signed(&self.account.token)
            .expect("the emulator's token is not empty");
        let (mut time, mut answer) = send(&outgoing, times).await;
        if !delay.is_zero() {
            let waited = delay.min(times.total.saturating_sub(time));
            tokio::time::sleep(waited).await;
            time += waited;
            if waited < delay {
                answer = Err(NoAnswer::too_late());
            }
        }
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let response = answer.as_ref().ok().map(|answer| ExchangeResponse {
            status: answer.status,
            headers: shown(&answer.headers),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        });
        let (url, form) = call.signed_over();
        let exchange = Exchange {
            id: String::new(),
            kind: Kind::Webhook,
            message_sid: None,
            user: None,
            at,
            signed: Some(Signed {
                string: signed_string(&url, form),
                verdict: verdict(answer.as_ref().ok()),
            }),
            params: call
                .form
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            request: request(outgoing),
            response,
            ms,
            error_code: None,
            attempt: None,
        };
        (exchange, ms, answer)
    }
}

fn request(outgoing: Outgoing) -> ExchangeRequest {
    ExchangeRequest {
        method: outgoing.method.to_string(),
        url: outgoing.url,
        headers: shown(&outgoing.headers),
        body: outgoing.body,
    }
}

/// The text that a signature is over.
fn signed_string(url: &str, form: Option<&Form>) -> String {
    let mut text = bare(url);
    if let Some(form) = form {
        let mut pairs: Vec<_> = form.iter().collect();
        pairs.sort_unstable();
        pairs.dedup();
        for (name, value) in pairs {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

/// What the server made of the signature, as far as its answer tells.
fn verdict(answer: Option<&Incoming>) -> String {
    match answer {
        None => "the server did not answer".to_owned(),
        Some(answer) if answer.status == 403 || answer.status == 401 => {
            let text = String::from_utf8_lossy(&answer.body);
            let first = text.lines().next().unwrap_or_default();
            let first: String = first.chars().take(200).collect();
            format!("refused with {}: {first}", answer.status)
        }
        Some(answer) if answer.status < 400 => format!("accepted with {}", answer.status),
        Some(answer) => format!("answered with {}", answer.status),
    }
}

/// What Twilio sends beside the form.
pub(super) fn webhook_headers(url: &str, token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    put(HOST, host);
    put(ACCEPT, "*/*");
    put(HeaderName::from_static("x-home-region"), "us1");
    put(HeaderName::from_static("i-twilio-idempotency-token"), token);
    headers
}

/// Headers as they are shown: passwords are not.
pub(super) fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let show = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = if name == AUTHORIZATION {
            "***".to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(show).collect()
}

/// A URL without its fragment.
fn bare(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

/// Where a link in a document leads; the fragment stays, as it may carry overrides.
fn resolve(base: &str, link: &str) -> Option<String> {
    let base = Url::parse(base).ok()?;
    let url = base.join(link.trim()).ok()?;
    // An absolute URL stays as it was written: its signature is over every byte.
    if Url::parse(link.trim()).is_ok() {
        return can_be_fetched(&url).then(|| link.trim().to_owned());
    }
    can_be_fetched(&url).then(|| url.to_string())
}

fn can_be_fetched(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// A URL without user and password, which are not signed and not sent at first.
fn split_userinfo(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((userinfo, _)) => {
            let plain = format!("{scheme}://{}", &rest[userinfo.len() + 1..]);
            (plain, Some(userinfo.to_owned()))
        }
        None => (url.to_owned(), None),
    }
}

fn channel(address: &str) -> &str {
    address
        .split_once(':')
        .map_or("sms", |(channel, _)| channel)
}
