//! One signed call, and the description of it that is shown.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::call::Call;
use super::engine::Engine;
use super::links::bare;
use super::outgoing::{Incoming, NoAnswer, Outgoing, Times, send};
use super::record::{Exchange, ExchangeRequest, ExchangeResponse, Kind, Signed, ms};
use crate::form::Form;

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
            let patience = times.total.min(times.read);
            let waited = delay.min(patience.saturating_sub(time));
            tokio::time::sleep(waited).await;
            time += waited;
            if waited < delay {
                answer = Err(NoAnswer::too_late(times));
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
            ..Exchange::new(Kind::Webhook, at, request(outgoing))
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
