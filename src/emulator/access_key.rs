//! The key of a run: with it, the control interface is for the user who started the emulator, and not for every user of
//! this machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::account::hex;
use super::engine::Engine;
use crate::secret::Secret;

/// A secret that is made at the start, and the cookie that carries it.
#[derive(Debug)]
pub(super) struct AccessKey {
    key: Secret,
    /// Its name has the port in it, since a browser sends a cookie to every port of a host.
    cookie: String,
}

impl AccessKey {
    /// A new one, for the emulator at `port`.
    pub(super) fn generate(port: u16) -> Self {
        Self {
            key: Secret::new(hex(32)),
            cookie: format!("replyhook_key_{port}"),
        }
    }

    pub(super) fn expose(&self) -> &str {
        self.key.expose()
    }

    /// Returns whether a text is the key. Compares digests, so that the time tells nothing about the key.
    pub(super) fn is(&self, text: &str) -> bool {
        Sha256::digest(text) == Sha256::digest(self.expose())
    }

    /// Returns whether a request carries the key, as a Bearer token or as the cookie.
    pub(super) fn permits(&self, headers: &HeaderMap) -> bool {
        let bearer = texts(headers, &AUTHORIZATION).any(|text| {
            text.split_once(' ').is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case("bearer") && self.is(token.trim())
            })
        });
        let mut cookies = texts(headers, &COOKIE).flat_map(|text| text.split(';'));
        bearer
            || cookies.any(|pair| {
                let pair = pair.trim().split_once('=');
                pair.is_some_and(|(name, value)| name == self.cookie && self.is(value))
            })
    }

    /// The `Set-Cookie` header of the page.
    pub(super) fn set_cookie(&self) -> Option<HeaderValue> {
        let text = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie,
            self.expose()
        );
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn texts<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok())
}

/// Refuses requests without the key, if this run has one.
pub(super) async fn check(
    State(engine): State<Arc<Engine>>,
    request: Request,
    next: Next,
) -> Response {
    match &engine.access_key {
        Some(key) if !key.permits(request.headers()) => refusal(),
        _ => next.run(request).await,
    }
}

/// Says where the key is found.
pub(super) fn refusal() -> Response {
    let body = serde_json::json!({
        "error": "this emulator is protected: open the address that `replyhook dev` printed, or send the key in it as \
                  \"Authorization: Bearer KEY\""
    });
    (
        StatusCode::UNAUTHORIZED,
        [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        ],
        body.to_string(),
    )
        .into_response()
}
