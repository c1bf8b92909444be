//! Getting a usable answer: retries as the URL's fragment has them, redirects, passwords and cookies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::SignedDuration;
use reqwest::Url;

use super::answer::{Usable, judge};
use super::call::Call;
use super::calling::webhook_headers;
use super::links::{bare, resolve, split_userinfo};
use super::outgoing::{Incoming, NoAnswer, Times};
use super::overrides::Overrides;
use super::record::Exchange;
use super::state::Cookies;
use super::webhook::{Attempt, Delivery};
use crate::error_code::ErrorCode;
use crate::form::Form;

/// HTTP redirects of one call (11215).
const MOST_HOPS: usize = 10;
/// Cookies are forgotten after so long without traffic.
const COOKIES: SignedDuration = SignedDuration::from_hours(4);

/// Why a call was of no use.
pub(super) struct Useless {
    pub(super) code: ErrorCode,
    may_repeat: bool,
}

/// One URL that is called for a document.
struct Target<'a> {
    url: &'a str,
    method: Method,
    form: &'a Form,
    attempt: &'static str,
}

/// What one request came to.
struct Called {
    answer: Incoming,
    /// `None` where it leads elsewhere.
    judged: Option<Result<Usable, ErrorCode>>,
}

/// An answer, and where it came from: what relative URLs in it lead on from.
pub(super) struct Answered {
    pub(super) usable: Usable,
    pub(super) url: String,
    pub(super) text: String,
}

/// `user:password` as a header has it.
pub(super) fn basic(login: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()
}

/// Whether an answer leads elsewhere.
fn is_redirect(answer: &Incoming) -> bool {
    (300..400).contains(&answer.status) && answer.headers.contains_key(LOCATION)
}

impl Delivery {
    /// Calls a URL until it answers usably, as often as its fragment allows.
    pub(super) async fn fetch(
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
                read: overrides.times.read,
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
            let called = self.call(&url, &method, form, left, attempt).await;
            let called = called.map_err(|failed| Useless {
                code: failed.code,
                may_repeat: overrides.retries_failure(&failed),
            })?;
            let Called { answer, judged } = called;
            let Some(judged) = judged else {
                let location = answer.headers.get(LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                let target = location.and_then(|location| resolve(&url, location));
                url = target.ok_or(Useless {
                    code: ErrorCode(11100),
                    may_repeat: false,
                })?;
                // As browsers do, and with them Twilio: the parameters are lost.
                if matches!(answer.status, 301..=303) {
                    method = Method::GET;
                    form = &nothing;
                }
                continue;
            };
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
        if let Some(last) = self.attempts.last_mut() {
            last.error_code = Some(11215);
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
    ) -> Result<Called, NoAnswer> {
        let (plain, login) = split_userinfo(url);
        let mut headers = self.headers(&plain);
        let first = self
            .exchange(&plain, method, form, headers.clone(), times, attempt)
            .await?;
        let answer = &first.answer;
        let asks = answer.status == 401 && answer.headers.contains_key(WWW_AUTHENTICATE);
        let Some(login) = login.filter(|_| asks).and_then(|login| basic(&login)) else {
            return Ok(first);
        };
        headers.insert(AUTHORIZATION, login);
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
    ) -> Result<Called, NoAnswer> {
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
        let (mut recorded, ms, answer) = engine.call(&call, times, delay).await;
        let answer = if drops {
            recorded.response = None;
            Err(NoAnswer::broken_off())
        } else {
            answer
        };
        let called = answer.map(|answer| {
            self.keep_cookies(url, &answer.headers);
            let judged = (!is_redirect(&answer)).then(|| {
                judge(
                    answer.status,
                    answer.content_type(),
                    answer.is_chunked(),
                    &answer.body,
                )
            });
            Called { answer, judged }
        });
        let answer = called.as_ref().ok().map(|called| &called.answer);
        let error_code = match &called {
            Ok(Called { judged, .. }) => match judged {
                Some(Err(code)) => Some(code.0),
                _ => None,
            },
            Err(failed) => Some(failed.code.0),
        };
        self.attempts.push(Attempt {
            url: url.to_owned(),
            status: answer.map(|answer| answer.status),
            content_type: answer.and_then(|answer| answer.content_type().map(str::to_owned)),
            ms,
            error_code,
        });
        engine.record(Exchange {
            message_sid: Some(self.message.sid.clone()),
            user: Some(self.message.user.clone()),
            error_code,
            attempt: Some(attempt),
            ..recorded
        });
        called
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
                    values: BTreeMap::new(),
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
