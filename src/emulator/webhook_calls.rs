//! Signed webhook requests, recorded as exchanges for the inspector.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::engine::Engine;
use super::http_client::{HttpError, HttpRequest, HttpResponse, Timeouts, send};
use super::links::bare;
use super::record::{Exchange, ExchangeKind, ExchangeRequest, ExchangeResponse, Signed, ms};
use super::signed_request::SignedRequest;
use crate::form::FormParams;

impl Engine {
    /// Signs and sends one request, and delays its response. Returns the record, the duration in milliseconds and the
    /// response.
    pub(super) async fn call(
        &self,
        call: &SignedRequest,
        times: Timeouts,
        delay: Duration,
    ) -> (Exchange, u64, Result<HttpResponse, HttpError>) {
        let at = self.now();
        let outgoing = call
            .signed(&self.account.token)
            .expect("the emulator's token is not empty");
        let (mut time, mut answer) = send(&outgoing, times).await;
        // Delay after the call, so that the bot works at its own speed. Wait no longer than Twilio would.
        if !delay.is_zero() {
            let timeout = times.total.min(times.read);
            let waited = delay.min(timeout.saturating_sub(time));
            tokio::time::sleep(waited).await;
            time += waited;
            if waited < delay {
                answer = Err(HttpError::too_late(times));
            }
        }
        let ms = ms(time);
        let response = answer.as_ref().ok().map(|answer| ExchangeResponse {
            status: answer.status,
            headers: shown(&answer.headers),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        });
        let (url, form) = call.signed_over();
        let exchange = Exchange {
            signed: Some(Signed {
                string: signed_string(&url, form),
                verdict: verdict(answer.as_ref().ok()),
            }),
            params: call
                .form
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            response,
            ms,
            ..Exchange::new(ExchangeKind::Webhook, at, request(outgoing))
        };
        (exchange, ms, answer)
    }
}

fn request(outgoing: HttpRequest) -> ExchangeRequest {
    ExchangeRequest {
        method: outgoing.method.to_string(),
        url: outgoing.url,
        headers: shown(&outgoing.headers),
        body: outgoing.body,
    }
}

/// Returns the signed text, for display only: URL, then parameters sorted by name.
fn signed_string(url: &str, form: Option<&FormParams>) -> String {
    let mut text = bare(url);
    if let Some(form) = form {
        let mut pairs: Vec<_> = form.iter().collect();
        pairs.sort_unstable();
        // As in `sign`, a repeated pair of name and value counts once.
        pairs.dedup();
        for (name, value) in pairs {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

/// Describes whether the server accepted the signature, judged by the status of its response.
fn verdict(answer: Option<&HttpResponse>) -> String {
    match answer {
        None => "no response from the server".to_owned(),
        // 401 and 403 are the usual statuses for a wrong signature; the first line often explains it.
        Some(answer) if answer.status == 403 || answer.status == 401 => {
            let text = String::from_utf8_lossy(&answer.body);
            let first = text.lines().next().unwrap_or_default();
            let first: String = first.chars().take(200).collect();
            format!("rejected with {}: {first}", answer.status)
        }
        Some(answer) if answer.status < 400 => format!("accepted with {}", answer.status),
        // Another error says nothing about the signature.
        Some(answer) => format!("responded with {}", answer.status),
    }
}

/// Returns the headers that Twilio sends, other than `Content-Type` and `X-Twilio-Signature`.
pub(super) fn webhook_headers(url: &str, token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    // Cut from the text: a parsed URL would change its spelling.
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    put(HOST, host);
    put(ACCEPT, "*/*");
    put(HeaderName::from_static("x-home-region"), "us1");
    put(HeaderName::from_static("i-twilio-idempotency-token"), token);
    headers
}

/// Returns headers for display, with `Authorization` masked.
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
