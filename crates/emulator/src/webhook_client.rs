//! Webhook requests with retries, redirects, passwords and cookies, until a response is usable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::SignedDuration;
use reqwest::Url;
use serde::Serialize;

use super::account::random_uuid;
use super::engine::Engine;
use super::http_client::{HttpError, HttpResponse, Timeouts};
use super::links::{resolve, split_userinfo, without_fragment};
use super::overrides::Overrides;
use super::record::{Exchange, ExchangeKind, Record};
use super::response_check::{CheckedResponse, check_response};
use super::signed_request::SignedRequest;
use super::state::Cookies;
use super::webhook_calls::{basic_auth, sign_and_send, webhook_headers};
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;

// One request and nine redirects; a tenth fails with 11215.
pub(super) const MAX_HOPS: usize = 10;
// Twilio drops cookies after four hours without traffic.
const COOKIE_TTL: SignedDuration = SignedDuration::from_hours(4);

/// Client for the webhook requests of one inbound message.
pub(super) struct WebhookClient {
    engine: Arc<Engine>,
    message_sid: String,
    user: String,
    sender: String,
    /// `I-Twilio-Idempotency-Token`, the same for all attempts.
    idempotency_token: String,
    pub(super) attempts: Vec<Attempt>,
}

/// HTTP request of a delivery, with the status of its response and Twilio's error code.
#[derive(Clone, Serialize)]
pub(super) struct Attempt {
    pub(super) url: String,
    pub(super) status: Option<u16>,
    pub(super) content_type: Option<String>,
    pub(super) ms: u64,
    pub(super) error_code: Option<u32>,
}

/// Failed request or unusable response.
pub(super) struct UnusableResponse {
    pub(super) code: ErrorCode,
    pub(super) may_retry: bool,
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
    response: HttpResponse,
    outcome: CallOutcome,
}

/// Consequence of a response.
enum CallOutcome {
    /// Calls this URL next.
    Redirect(String),
    /// Uses the response, or reports the error code.
    Checked(Result<CheckedResponse, ErrorCode>),
}

/// Usable response, with the URL after redirects. Relative URLs in the document are resolved against it.
pub(super) struct FollowedResponse {
    pub(super) content: CheckedResponse,
    pub(super) url: String,
    pub(super) text: String,
}

/// Returns the URL that a response redirects to. Twilio follows no other redirects than these (11216).
pub(super) fn redirect_target(url: &str, response: &HttpResponse) -> Option<String> {
    if !matches!(response.status, 301..=303 | 307) {
        return None;
    }
    let location = response.headers.get(LOCATION)?.to_str().ok()?;
    resolve(url, location)
}

/// Returns whether a `Set-Cookie` has an empty name or a tab. hyper rejects other control characters.
fn has_invalid_cookie(headers: &HeaderMap) -> bool {
    let mut cookies = headers.get_all(SET_COOKIE).iter();
    cookies.any(|cookie| {
        let cookie = cookie.as_bytes();
        cookie.contains(&b'\t') || cookie.trim_ascii_start().starts_with(b"=")
    })
}

impl WebhookClient {
    pub(super) fn new(engine: Arc<Engine>, message: &Record) -> Self {
        Self {
            engine,
            message_sid: message.sid.clone(),
            user: message.user.clone(),
            sender: message.sender.clone(),
            idempotency_token: random_uuid(),
            attempts: Vec::new(),
        }
    }

    /// Calls a URL, with retries as its fragment specifies, until a response is usable.
    pub(super) async fn fetch(
        &mut self,
        url: &str,
        method: &Method,
        form: &FormParams,
        attempt: &'static str,
    ) -> Result<FollowedResponse, UnusableResponse> {
        let engine = self.engine.clone();
        let (mut overrides, invalid) = Overrides::parse(url);
        for (code, detail) in &invalid {
            engine.add_debugger_entry(*code, Some(detail), Some(&self.message_sid), Some(url));
        }
        // The `retry` fault takes precedence over the fragment.
        if let Some(words) = &engine.state().faults.retry {
            overrides.set_retry_on(words);
        }
        let started = Instant::now();
        let mut retry_count = 0;
        loop {
            // `total` covers all attempts together, `read` and `connect` each one.
            let remaining = overrides.timeouts.total.saturating_sub(started.elapsed());
            let timeouts = Timeouts {
                total: remaining,
                connect: overrides.timeouts.connect.min(remaining),
                is_total_reduced: overrides.timeouts.is_total_reduced || retry_count > 0,
                ..overrides.timeouts
            };
            let target = Target {
                url,
                method: method.clone(),
                form,
                attempt: if retry_count == 0 { attempt } else { "retry" },
            };
            let unusable = match self.follow_redirects(target, timeouts, &overrides).await {
                Ok(response) => return Ok(response),
                Err(unusable) => unusable,
            };
            if !unusable.may_retry || retry_count == overrides.retries {
                return Err(unusable);
            }
            if started.elapsed() >= overrides.timeouts.total {
                return Err(UnusableResponse {
                    code: ErrorCode(11203),
                    ..unusable
                });
            }
            retry_count += 1;
        }
    }

    /// Sends one request and follows its redirects.
    async fn follow_redirects(
        &mut self,
        target: Target<'_>,
        timeouts: Timeouts,
        overrides: &Overrides,
    ) -> Result<FollowedResponse, UnusableResponse> {
        let started = Instant::now();
        let mut url = without_fragment(target.url);
        let mut method = target.method;
        let no_params = FormParams::default();
        let mut form = target.form;
        for hop in 0..MAX_HOPS {
            let remaining = Timeouts {
                total: timeouts.total.saturating_sub(started.elapsed()),
                ..timeouts
            };
            let attempt = if hop == 0 { target.attempt } else { "redirect" };
            let result = self
                .send_with_login(&url, &method, form, remaining, attempt)
                .await;
            let call = result.map_err(|error| UnusableResponse {
                code: error.code,
                may_retry: overrides.retries_failure(&error),
            })?;
            let CallResult { response, outcome } = call;
            let check = match outcome {
                CallOutcome::Checked(check) => check,
                CallOutcome::Redirect(target) => {
                    url = target;
                    // Like browsers, Twilio continues with GET and without the parameters. 307 keeps both.
                    if matches!(response.status, 301..=303) {
                        method = Method::GET;
                        form = &no_params;
                    }
                    continue;
                }
            };
            return match check {
                Ok(content) => Ok(FollowedResponse {
                    content,
                    text: String::from_utf8_lossy(&response.body).into_owned(),
                    url,
                }),
                Err(code) => Err(UnusableResponse {
                    code,
                    may_retry: overrides.retries_status(response.status),
                }),
            };
        }
        // `send_and_record` recorded the last hop without an error, since each redirect by itself is valid.
        if let Some(last) = self.attempts.last_mut() {
            last.error_code = Some(11215);
        }
        Err(UnusableResponse {
            code: ErrorCode(11215),
            may_retry: false,
        })
    }

    /// Sends one request. Repeats it with the URL's password after a 401 with `WWW-Authenticate`.
    async fn send_with_login(
        &mut self,
        url: &str,
        method: &Method,
        form: &FormParams,
        timeouts: Timeouts,
        attempt: &'static str,
    ) -> Result<CallResult, HttpError> {
        let (plain_url, login) = split_userinfo(url);
        let mut headers = self.request_headers(&plain_url);
        let first = self
            .send_and_record(&plain_url, method, form, headers.clone(), timeouts, attempt)
            .await?;
        let is_challenge = first.response.is_login_challenge();
        let Some(login) = login
            .filter(|_| is_challenge)
            .and_then(|login| basic_auth(&login))
        else {
            return Ok(first);
        };
        headers.insert(AUTHORIZATION, login);
        self.send_and_record(&plain_url, method, form, headers, timeouts, attempt)
            .await
    }

    /// Sends one request, applies the faults, and records the exchange and the attempt.
    async fn send_and_record(
        &mut self,
        url: &str,
        method: &Method,
        form: &FormParams,
        headers: HeaderMap,
        timeouts: Timeouts,
        attempt: &'static str,
    ) -> Result<CallResult, HttpError> {
        let engine = self.engine.clone();
        let request = SignedRequest {
            url: url.to_owned(),
            signed_url: None,
            method: method.clone(),
            form: form.clone(),
            headers,
        };
        let (delay, is_dropped) = {
            let state = engine.state();
            // Not "fallback": the fault simulates an unreachable primary URL. A retry of the fallback is dropped too,
            // because its attempt is named "retry".
            let is_primary = matches!(attempt, "primary" | "retry" | "duplicate");
            let delay = Duration::from_millis(state.faults.delay_ms);
            (delay, state.faults.drop_connection && is_primary)
        };
        let (mut recorded, result) =
            sign_and_send(&engine, ExchangeKind::Webhook, &request, timeouts, delay).await;
        // Drop after the call: the bot has handled the message, and only Twilio does not know.
        let result = if is_dropped {
            recorded.response = None;
            Err(HttpError::closed_early())
        } else {
            result
        };
        let result = result.map(|response| {
            self.store_cookies(url, &response.headers);
            let outcome = if has_invalid_cookie(&response.headers) {
                CallOutcome::Checked(Err(ErrorCode(11206)))
            } else if let Some(target) = redirect_target(url, &response) {
                CallOutcome::Redirect(target)
            } else {
                CallOutcome::Checked(check_response(
                    response.status,
                    response.content_type(),
                    response.is_chunked(),
                    &response.body,
                ))
            };
            CallResult { response, outcome }
        });
        let response = result.as_ref().ok().map(|call| &call.response);
        let error_code = match &result {
            Ok(CallResult { outcome, .. }) => match outcome {
                CallOutcome::Checked(Err(code)) => Some(code.0),
                _ => None,
            },
            Err(error) => Some(error.code.0),
        };
        self.attempts.push(Attempt {
            url: url.to_owned(),
            status: response.map(|response| response.status),
            content_type: response.and_then(|response| response.content_type().map(str::to_owned)),
            ms: recorded.ms,
            error_code,
        });
        engine.record_exchange(Exchange {
            message_sid: Some(self.message_sid.clone()),
            user: Some(self.user.clone()),
            error_code,
            attempt: Some(attempt),
            ..recorded
        });
        result
    }

    fn request_headers(&self, url: &str) -> HeaderMap {
        let mut headers = webhook_headers(url, &self.idempotency_token);
        let key = self.cookie_key(url);
        let now = self.engine.now();
        let mut state = self.engine.state();
        if let Some(cookies) = state.cookies.get_mut(&key) {
            if now.duration_since(cookies.last_used) < COOKIE_TTL {
                cookies.last_used = now;
                let values: Vec<_> = cookies
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                if let Ok(value) = HeaderValue::try_from(values.join("; ")) {
                    headers.insert(COOKIE, value);
                }
            } else {
                state.cookies.remove(&key);
            }
        }
        headers
    }

    fn store_cookies(&self, url: &str, headers: &HeaderMap) {
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
                    last_used: now,
                });
            cookies.last_used = now;
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
            self.user.clone(),
            self.sender.clone(),
            host.unwrap_or_default(),
        )
    }
}
