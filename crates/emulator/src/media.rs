//! Media files: served to the bot via a signed link, as Twilio does, and to the page without credentials.
//!
//! Source: twilio.com/docs/messaging/api/media-resource.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use serde::Deserialize;

use super::engine::Engine;
use super::links::without_password;
use super::record::{Exchange, ExchangeKind, ExchangeRequest, ExchangeResponse, Record, whole_ms};
use super::state::StoredMedia;
use super::webhook_calls::masked_headers;
use replyhook_core::Secret;
use replyhook_core::signature::sign;
use replyhook_core::tls;

/// Maximum size of a media file: of every inbound one, and of an outbound one on WhatsApp and RCS.
pub(super) const MAX_MEDIA_BYTES: usize = 16 * 1024 * 1024;
/// Lifetime of a signed link, as at Twilio.
const LINK_TTL: SignedDuration = SignedDuration::from_hours(4);
/// Timeout for fetching a media file of the bot.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/media/{sid}", get(serve_link))
}

/// Routes for the page. They belong to the control API, and need its access key.
pub(super) fn control_routes() -> Router<Arc<Engine>> {
    Router::new().route("/_emulator/media/{sid}", get(serve_to_page))
}

async fn serve_to_page(State(engine): State<Arc<Engine>>, Path(sid): Path<String>) -> Response {
    let media = engine.state().media(&sid).cloned();
    media.as_ref().map_or_else(not_found, file_response)
}

#[derive(Deserialize)]
struct LinkQuery {
    expires: i64,
    signature: String,
}

/// Serves the target of [`redirect`]: no credentials, but a signature and an expiry time.
async fn serve_link(
    State(engine): State<Arc<Engine>>,
    Path(sid): Path<String>,
    Query(link): Query<LinkQuery>,
) -> Response {
    // The emulator's clock, so that a test can let links expire.
    let at = engine.now();
    let is_valid = link_signature(&engine.account.token, &sid, link.expires) == link.signature
        && at.as_second() < link.expires;
    let response = if is_valid {
        let media = engine.state().media(&sid).cloned();
        media.as_ref().map_or_else(not_found, file_response)
    } else {
        (StatusCode::FORBIDDEN, "the link has expired\n").into_response()
    };
    record_link(&engine, &sid, &response, at);
    response
}

/// Redirects to a signed link, as Twilio's Media resource does.
pub(super) fn redirect(engine: &Engine, sid: &str) -> Response {
    let expires = engine
        .now()
        .saturating_add(LINK_TTL)
        .unwrap_or(Timestamp::MAX);
    let expires = expires.as_second();
    let signature = link_signature(&engine.account.token, sid, expires);
    let encoded_signature = url_encode(&signature);
    let location = format!(
        "{}/media/{sid}?expires={expires}&signature={encoded_signature}",
        engine.origin
    );
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
}

fn url_encode(text: &str) -> String {
    let form: replyhook_core::form::FormParams = [("s", text)].into_iter().collect();
    // Cut off `s=`.
    form.encode().split_off(2)
}

// Covers the expiry time too, so that a client cannot extend it.
fn link_signature(token: &Secret, sid: &str, expires: i64) -> String {
    sign(token, &format!("{sid}?{expires}"), None).unwrap_or_default()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "no such file\n").into_response()
}

/// Serves a file. Users choose content and type, so browsers must not run it as a page of this origin.
fn file_response(media: &StoredMedia) -> Response {
    let is_inline = is_inline_type(&media.content_type);
    let content_type = HeaderValue::try_from(&media.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let disposition = if is_inline { "inline" } else { "attachment" };
    (
        [
            (CONTENT_TYPE, content_type),
            (CONTENT_DISPOSITION, HeaderValue::from_static(disposition)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; sandbox"),
            ),
            (
                CACHE_CONTROL,
                HeaderValue::from_static("private, max-age=3600"),
            ),
        ],
        Body::from(media.bytes.to_vec()),
    )
        .into_response()
}

/// Returns whether a browser may show a type inline: raster images, audio and video.
fn is_inline_type(content_type: &str) -> bool {
    // Not svg+xml, which can contain scripts.
    const IMAGE_TYPES: [&str; 6] = ["jpeg", "jpg", "png", "gif", "webp", "bmp"];
    let lower_case = content_type.to_ascii_lowercase();
    let is_token = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
    };
    match lower_case.split_once('/') {
        Some(("image", kind)) => IMAGE_TYPES.contains(&kind),
        Some(("audio" | "video", kind)) => is_token(kind),
        _ => false,
    }
}

/// Failed fetch of a media file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the connection failed")]
    Unreachable,
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("the file is too large")]
    TooLarge,
    #[error("the connection was closed early")]
    ClosedEarly,
}

/// Fetches a file and records the exchange. Returns content and content type.
pub(super) async fn fetch_media(
    engine: &Engine,
    url: &str,
    max_bytes: usize,
    message: Option<&Record>,
) -> Result<(Vec<u8>, Option<String>), FetchError> {
    let (at, started) = (engine.now(), Instant::now());
    let result = fetch(url, max_bytes).await;
    let response = match &result {
        Ok((bytes, content_type)) => Some(ExchangeResponse {
            status: 200,
            headers: content_type
                .iter()
                .map(|content_type| ("content-type".to_owned(), content_type.clone()))
                .collect(),
            // Not the content: it is stored once, as media.
            body: format!("({} bytes)", bytes.len()),
        }),
        Err(FetchError::Status(status)) => Some(ExchangeResponse {
            status: *status,
            headers: Vec::new(),
            body: String::new(),
        }),
        Err(_) => None,
    };
    let request = ExchangeRequest::get(without_password(url));
    engine.record_exchange(Exchange {
        message_sid: message.map(|message| message.sid.clone()),
        user: message.map(|message| message.user.clone()),
        response,
        ms: whole_ms(started.elapsed()),
        ..Exchange::new(ExchangeKind::Media, at, request)
    });
    result
}

/// Records a request for a signed link, with the message that the file belongs to.
fn record_link(engine: &Engine, sid: &str, response: &Response, at: Timestamp) {
    let status = response.status().as_u16();
    let owner = {
        let state = engine.state();
        let mut messages = state.messages.iter().rev();
        let owner = messages.find(|message| message.media.iter().any(|file| file.sid == sid));
        owner.map(|message| (message.sid.clone(), message.user.clone()))
    };
    let (message_sid, user) = owner.unzip();
    // Without the query, which contains the link's signature.
    let request = ExchangeRequest::get(format!("{}/media/{sid}", engine.origin));
    engine.record_exchange(Exchange {
        message_sid,
        user,
        response: Some(ExchangeResponse {
            status,
            headers: masked_headers(response.headers()),
            body: String::new(),
        }),
        ..Exchange::new(ExchangeKind::Media, at, request)
    });
}

/// Fetches a file. Follows redirects, and returns content and content type.
async fn fetch(url: &str, max_bytes: usize) -> Result<(Vec<u8>, Option<String>), FetchError> {
    tls::install_provider();
    let client = reqwest::Client::builder()
        .connect_timeout(FETCH_TIMEOUT)
        .timeout(FETCH_TIMEOUT)
        .no_proxy()
        .user_agent("TwilioProxy/1.1")
        .build()
        .map_err(|_| FetchError::Unreachable)?;
    let response = client.get(url).send().await;
    let mut response = response.map_err(|_| FetchError::Unreachable)?;
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let mut bytes = Vec::new();
    // Check while reading: Content-Length may be missing or wrong.
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|_| FetchError::ClosedEarly)?
    {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(FetchError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, content_type))
}

pub(super) fn is_loopback(url: &str) -> bool {
    let host = Url::parse(url).ok();
    let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
