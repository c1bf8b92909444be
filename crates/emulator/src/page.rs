//! Chat page: static files in the binary, and a Content-Security-Policy that allows nothing else to run.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::access_key;
use super::engine::Engine;

// Nothing inline and nothing from other origins. `blob:` is for previews of files that are about to be sent.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const INDEX: &str = include_str!("page/index.html");

/// Name, content type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("api.js", JS, include_str!("page/api.js")),
    ("chat.js", JS, include_str!("page/chat.js")),
    ("composer.js", JS, include_str!("page/composer.js")),
    ("content.js", JS, include_str!("page/content.js")),
    ("conversation.js", JS, include_str!("page/conversation.js")),
    ("dom.js", JS, include_str!("page/dom.js")),
    ("exchange.js", JS, include_str!("page/exchange.js")),
    ("faults.js", JS, include_str!("page/faults.js")),
    ("inspector.js", JS, include_str!("page/inspector.js")),
    ("markup.js", JS, include_str!("page/markup.js")),
    ("page.js", JS, include_str!("page/page.js")),
    ("saved.js", JS, include_str!("page/saved.js")),
    ("store.js", JS, include_str!("page/store.js")),
    ("text.js", JS, include_str!("page/text.js")),
    ("users.js", JS, include_str!("page/users.js")),
];
const JS: &str = "text/javascript; charset=utf-8";

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/", get(index))
        .route("/page/{name}", get(file))
}

#[derive(Deserialize)]
struct PageQuery {
    key: Option<String>,
}

/// Serves the page. A URL with the access key also sets the cookie that authorizes the page's requests.
async fn index(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<PageQuery>,
    headers: HeaderMap,
) -> Response {
    let mut page = static_response("text/html; charset=utf-8", INDEX);
    let Some(key) = &engine.access_key else {
        return page;
    };
    if query.key.is_some_and(|text| key.matches(&text)) {
        if let Some(cookie) = key.set_cookie() {
            page.headers_mut().insert(SET_COOKIE, cookie);
        }
        return page;
    }
    if key.permits(&headers) {
        return page;
    }
    access_key::rejection()
}

// Without the access key: the files are public, and contain no data of the conversations.
async fn file(Path(name): Path<String>) -> Response {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    match found {
        Some((_, content_type, text)) => static_response(content_type, text),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}

fn static_response(content_type: &'static str, text: &'static str) -> Response {
    (
        [
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            // The files change with the binary, but their names have no version.
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        text,
    )
        .into_response()
}
