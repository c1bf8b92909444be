//! Access key of one run. It protects the control API from other users of the same machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::account::random_hex;
use replyhook_core::Secret;

/// Secret generated at startup, and the name of the cookie that carries it.
#[derive(Debug)]
pub(super) struct AccessKey {
    key: Secret,
    /// Contains the port, since browsers send a cookie to every port of a host.
    cookie_name: String,
}

impl AccessKey {
    /// Generates a key for the emulator at `port`.
    pub(super) fn generate(port: u16) -> Self {
        Self {
            key: Secret::new(random_hex(32)),
            cookie_name: format!("replyhook_key_{port}"),
        }
    }

    pub(super) fn expose(&self) -> &str {
        self.key.expose()
    }

    /// Returns whether a text is the key.
    pub(super) fn matches(&self, text: &str) -> bool {
        // Compare digests: how far two digests agree says nothing about the key, so timing does not help to guess it.
        Sha256::digest(text) == Sha256::digest(self.expose())
    }

    /// Returns whether a request carries the key, as a Bearer token or as the cookie.
    pub(super) fn permits(&self, headers: &HeaderMap) -> bool {
        let bearer = header_values(headers, &AUTHORIZATION).any(|text| {
            text.split_once(' ').is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case("bearer") && self.matches(token.trim())
            })
        });
        let mut cookies = header_values(headers, &COOKIE).flat_map(|text| text.split(';'));
        bearer
            || cookies.any(|pair| {
                let pair = pair.trim().split_once('=');
                pair.is_some_and(|(name, value)| name == self.cookie_name && self.matches(value))
            })
    }

    /// Returns the `Set-Cookie` header that the page sends.
    pub(super) fn set_cookie(&self) -> Option<HeaderValue> {
        let text = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie_name,
            self.expose()
        );
        let mut value = HeaderValue::try_from(text).ok()?;
        // Hides the key from the header's `Debug` output.
        value.set_sensitive(true);
        Some(value)
    }
}

fn header_values<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok())
}

/// Rejects requests without the key, if this run has one.
pub(super) async fn require_key(
    State(key): State<Option<Arc<AccessKey>>>,
    request: Request,
    next: Next,
) -> Response {
    match key {
        Some(key) if !key.permits(request.headers()) => rejection(),
        _ => next.run(request).await,
    }
}

/// Builds the 401 response, which explains where to find the key.
pub(super) fn rejection() -> Response {
    let body = serde_json::json!({
        "error": "this emulator is protected; open the address that `replyhook dev` printed, or send its key as \
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
