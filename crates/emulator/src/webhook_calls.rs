//! Signed webhook requests, recorded as exchanges for the inspector.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::engine::Engine;
use super::http_client::{HttpError, HttpRequest, HttpResponse, Timeouts, send};
use super::links::without_fragment;
use super::record::{
    Exchange, ExchangeKind, ExchangeRequest, ExchangeResponse, SignatureInfo, whole_ms,
};
use super::signed_request::SignedRequest;
use replyhook_core::form::FormParams;
use replyhook_core::signature::SigningKey;

/// Signs and sends one request, and delays its response. Returns the record and the response.
pub(super) async fn sign_and_send(
    engine: &Engine,
    kind: ExchangeKind,
    signed_request: &SignedRequest,
    timeouts: Timeouts,
    delay: Duration,
) -> (Exchange, Result<HttpResponse, HttpError>) {
    let at = engine.now();
    let shared_key = engine.state().faults.shared_key.clone();
    let (key, settings_header) = match shared_key {
        Some(key) => (key.signing_key(), Some(key.settings_header())),
        None => (SigningKey::from(&engine.account.token), None),
    };
    let outgoing = signed_request
        .to_http_request(&key, settings_header)
        .expect("the emulator's token is not empty, and neither is the secret of a fault");
    let (mut time, mut result) = send(&outgoing, timeouts).await;
    // Delay after the call, so that the bot works at its own speed. Wait no longer than Twilio would.
    if !delay.is_zero() {
        let timeout = timeouts.total.min(timeouts.read);
        let wait = delay.min(timeout.saturating_sub(time));
        tokio::time::sleep(wait).await;
        time += wait;
        if wait < delay {
            result = Err(HttpError::timed_out(timeouts));
        }
    }
    let response = result.as_ref().ok().map(|response| ExchangeResponse {
        status: response.status,
        headers: masked_headers(&response.headers),
        body: String::from_utf8_lossy(&response.body).into_owned(),
    });
    let (url, form) = signed_request.signed_parts();
    let exchange = Exchange {
        signed: Some(SignatureInfo {
            string: signed_string(&url, form),
            verdict: signature_verdict(result.as_ref().ok()),
        }),
        params: signed_request
            .form
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        response,
        ms: whole_ms(time),
        ..Exchange::new(kind, at, exchange_request(outgoing))
    };
    (exchange, result)
}

fn exchange_request(outgoing: HttpRequest) -> ExchangeRequest {
    ExchangeRequest {
        method: outgoing.method.to_string(),
        url: outgoing.url,
        headers: masked_headers(&outgoing.headers),
        body: outgoing.body,
    }
}

/// Returns the signed text, for display only: URL, then parameters sorted by name.
fn signed_string(url: &str, form: Option<&FormParams>) -> String {
    let mut text = without_fragment(url);
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
fn signature_verdict(response: Option<&HttpResponse>) -> String {
    match response {
        None => "no response from the server".to_owned(),
        // 401 and 403 are the usual statuses for a wrong signature; the first line often explains it.
        Some(response) if response.status == 403 || response.status == 401 => {
            let text = String::from_utf8_lossy(&response.body);
            let first_line = text.lines().next().unwrap_or_default();
            let first_line: String = first_line.chars().take(200).collect();
            format!(
                "rejected with {}: {first_line}; does the server verify with the TWILIO_AUTH_TOKEN of `replyhook dev`, and with the \
                 URL that was called?",
                response.status
            )
        }
        Some(response) if response.status < 400 => format!("accepted with {}", response.status),
        // Another error says nothing about the signature.
        Some(response) => format!("responded with {}", response.status),
    }
}

/// Returns the headers that Twilio sends, other than `Content-Type` and `X-Twilio-Signature`.
pub(super) fn webhook_headers(url: &str, idempotency_token: &str) -> HeaderMap {
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
    put(
        HeaderName::from_static("i-twilio-idempotency-token"),
        idempotency_token,
    );
    headers
}

/// Returns the `Authorization` header for `user:password`.
pub(super) fn basic_auth(login: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()
}

/// Returns headers for display, with `Authorization` masked.
pub(super) fn masked_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let to_pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = if name == AUTHORIZATION {
            "***".to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(to_pair).collect()
}
