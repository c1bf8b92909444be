//! Webhook requests with retries, redirects, passwords and cookies, until a response is usable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::SignedDuration;
use reqwest::Url;

use super::http_client::{HttpError, HttpResponse, Timeouts};
use super::links::{bare, resolve, split_userinfo};
use super::overrides::Overrides;
use super::record::Exchange;
use super::response_check::{CheckedResponse, judge};
use super::signed_request::SignedRequest;
use super::state::Cookies;
use super::webhook::{Attempt, Delivery};
use super::webhook_calls::webhook_headers;
use crate::error_code::ErrorCode;
use crate::form::FormParams;

// One request and nine redirects; a tenth fails with 11215.
const MAX_HOPS: usize = 10;
// Twilio drops cookies after four hours without traffic.
const COOKIE_TTL: SignedDuration = SignedDuration::from_hours(4);

/// Failed request or unusable response.
pub(super) struct UnusableResponse {
    pub(super) code: ErrorCode,
    may_repeat: bool,
}

/// Webhook request before redirects.
struct Target<'a> {
    url: &'a str,
    method: Method,
    form: &'a FormParams,
    attempt: &'static str,
}

/// Response to one request.
struct CallResult {
    answer: HttpResponse,
    /// `None` for a redirect.
    judged: Option<Result<CheckedResponse, ErrorCode>>,
}

/// Usable response, with the URL after redirects. Relative URLs in the document are resolved against it.
pub(super) struct FollowedResponse {
    pub(super) usable: CheckedResponse,
    pub(super) url: String,
    pub(super) text: String,
}

/// Returns the `Authorization` header for `user:password`.
pub(super) fn basic(login: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()
}

// A 3xx without Location is not a redirect; `judge` rejects it with 11200.
fn is_redirect(answer: &HttpResponse) -> bool {
    (300..400).contains(&answer.status) && answer.headers.contains_key(LOCATION)
}

impl Delivery {
    /// Calls a URL, with retries as its fragment specifies, until a response is usable.
    pub(super) async fn fetch(
        &mut self,
        url: &str,
        method: &Method,
        form: &FormParams,
        attempt: &'static str,
    ) -> Result<FollowedResponse, UnusableResponse> {
        let engine = self.engine.clone();
        let (mut overrides, wrong) = Overrides::parse(url);
        for (code, detail) in &wrong {
            engine.debug(*code, Some(detail), Some(&self.message.sid), Some(url));
        }
        // The `retry` fault takes precedence over the fragment.
        if let Some(words) = &engine.state().faults.retry {
            overrides.set_retry_on(words);
        }
        let started = Instant::now();
        let mut tries = 0;
        loop {
            // `total` covers all attempts together, `read` and `connect` each one.
            let left = overrides.times.total.saturating_sub(started.elapsed());
            let times = Timeouts {
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
                return Err(UnusableResponse {
                    code: ErrorCode(11203),
                    ..useless
                });
            }
            tries += 1;
        }
    }

    /// Sends one request and follows its redirects.
    async fn hops(
        &mut self,
        target: Target<'_>,
        times: Timeouts,
        overrides: &Overrides,
    ) -> Result<FollowedResponse, UnusableResponse> {
        let started = Instant::now();
        let mut url = bare(target.url);
        let mut method = target.method;
        let nothing = FormParams::default();
        let mut form = target.form;
        for hop in 0..MAX_HOPS {
            let left = Timeouts {
                total: times.total.saturating_sub(started.elapsed()),
                ..times
            };
            let attempt = if hop == 0 { target.attempt } else { "redirect" };
            let called = self.call(&url, &method, form, left, attempt).await;
            let called = called.map_err(|failed| UnusableResponse {
                code: failed.code,
                may_repeat: overrides.retries_failure(&failed),
            })?;
            let CallResult { answer, judged } = called;
            let Some(judged) = judged else {
                let location = answer.headers.get(LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                let target = location.and_then(|location| resolve(&url, location));
                url = target.ok_or(UnusableResponse {
                    code: ErrorCode(11100),
                    may_repeat: false,
                })?;
                // Like browsers, Twilio continues with GET and without the parameters. 307 and 308 keep both.
                if matches!(answer.status, 301..=303) {
                    method = Method::GET;
                    form = &nothing;
                }
                continue;
            };
            return match judged {
                Ok(usable) => Ok(FollowedResponse {
                    usable,
                    text: String::from_utf8_lossy(&answer.body).into_owned(),
                    url,
                }),
                Err(code) => Err(UnusableResponse {
                    code,
                    may_repeat: overrides.retries_status(answer.status),
                }),
            };
        }
        // `exchange` recorded the last hop without an error, since each redirect by itself is valid.
        if let Some(last) = self.attempts.last_mut() {
            last.error_code = Some(11215);
        }
        Err(UnusableResponse {
            code: ErrorCode(11215),
            may_repeat: false,
        })
    }

    /// Sends one request. Repeats it with the URL's password after a 401 with `WWW-Authenticate`.
    async fn call(
        &mut self,
        url: &str,
        method: &Method,
        form: &FormParams,
        times: Timeouts,
        attempt: &'static str,
    ) -> Result<CallResult, HttpError> {
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
        form: &FormParams,
        headers: HeaderMap,
        times: Timeouts,
        attempt: &'static str,
    ) -> Result<CallResult, HttpError> {
        let engine = self.engine.clone();
        let call = SignedRequest {
            url: url.to_owned(),
            signed_url: None,
            method: method.clone(),
            form: form.clone(),
            headers,
        };
        let (delay, drops) = {
            let state = engine.state();
            // Not "fallback": the fault simulates an unreachable primary URL. A retry of the fallback is dropped too,
            // because its attempt is named "retry".
            let is_primary = matches!(attempt, "primary" | "retry" | "duplicate");
            let delay = Duration::from_millis(state.faults.delay_ms);
            (delay, state.faults.drop_connection && is_primary)
        };
        let (mut recorded, ms, answer) = engine.call(&call, times, delay).await;
        // Drop after the call: the bot has handled the message, and only Twilio does not know.
        let answer = if drops {
            recorded.response = None;
            Err(HttpError::broken_off())
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
            CallResult { answer, judged }
        });
        let answer = called.as_ref().ok().map(|called| &called.answer);
        let error_code = match &called {
            Ok(CallResult { judged, .. }) => match judged {
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
            if now.duration_since(cookies.used) < COOKIE_TTL {
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
            // Attributes such as Path and Max-Age are ignored: cookies are sent to every path of the host.
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

    // Twilio stores cookies per pair of numbers: another conversation does not send them.
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
