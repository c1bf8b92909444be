//! `/media/{token}`: a file behind a link of ours. Whoever has the link may have the file: nobody else can name it.
//!
//! GET and HEAD, one range at a time. No signature is asked for, since Twilio makes none here. An unknown link, one whose time
//! is up, and what is no link at all are told apart by nobody.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, IF_RANGE, RANGE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::Webhooks;
use super::file_body::file_body;
use super::range::{Range, range};
use crate::error::BoxError;
use crate::media::{FetchedFile, Followed, LinkPermit, NotFollowed, OurFile};
use crate::reply::kinds::is_media;
use crate::telemetry::metrics::Outcome;

pub(super) async fn media(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET or HEAD\n",
            Outcome::RejectedMethod,
        );
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    let path = uri.path().trim_end_matches('/');
    let token = path.rsplit('/').next().unwrap_or_default();
    let is_head = method == Method::HEAD;
    match webhooks.media.follow(token).await {
        Ok((Followed::Ours { file, content_type }, permit)) => {
            ours(file, permit, content_type.as_deref(), &headers, is_head)
        }
        Ok((Followed::AtTwilio(file), permit)) => at_twilio(file, permit, is_head),
        Err(NotFollowed::Unknown) => plain(StatusCode::NOT_FOUND, "not found\n", Outcome::NotFound),
        Err(NotFollowed::Busy) => {
            if let Some(suppressed) = webhooks.warnings.media.pass() {
                tracing::warn!(
                    suppressed,
                    "refused a request for a file: too many files are being read at the same time"
                );
            }
            unavailable("overloaded\n")
        }
        Err(NotFollowed::Store(error)) => {
            webhooks.store_report.failed("linked", &error);
            unavailable("store unavailable\n")
        }
        Err(NotFollowed::Fetch(error)) => {
            if let Some(suppressed) = webhooks.warnings.media.pass() {
                tracing::warn!(suppressed, %error, "a file behind a link could not be fetched from Twilio");
            }
            plain(
                StatusCode::BAD_GATEWAY,
                "Twilio does not give the file\n",
                Outcome::Unavailable,
            )
        }
    }
}

fn at_twilio(file: FetchedFile, permit: LinkPermit, is_head: bool) -> Response {
    let file_type = file.file_type();
    let content_type = file_type.sniffed.or(file_type.declared.as_deref());
    let mut response = whole(content_type);
    if let Some(length) = file.length() {
        let length = HeaderValue::from(length);
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    *response.body_mut() = if is_head {
        // An empty body would be told as a length of 0.
        Body::from_stream(stream::empty::<Result<Vec<u8>, BoxError>>())
    } else {
        let pieces = stream::try_unfold(file, |mut file| async move {
            let piece = file.chunk().await?;
            Ok(piece.map(|piece| (piece, file)))
        });
        file_body(pieces, permit)
    };
    response
}

fn ours(
    file: OurFile,
    permit: LinkPermit,
    content_type: Option<&str>,
    headers: &HeaderMap,
    is_head: bool,
) -> Response {
    let length = file.length;
    // There is nothing by which a part could be told to be of the same file.
    let wanted = headers
        .get(RANGE)
        .filter(|_| !headers.contains_key(IF_RANGE));
    let wanted = range(wanted.and_then(|value| value.to_str().ok()), length);
    let mut response = whole(content_type);
    let head = response.headers_mut();
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (from, to) = match wanted {
        Range::Whole => (0, length),
        Range::Part { from, to } => {
            let text = format!("bytes {from}-{}/{length}", to - 1);
            head.insert(CONTENT_RANGE, ascii(&text));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (from, to)
        }
        Range::Outside => {
            let mut response = plain(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "no such range\n",
                Outcome::Ok,
            );
            let text = format!("bytes */{length}");
            response.headers_mut().insert(CONTENT_RANGE, ascii(&text));
            return response;
        }
    };
    let left = HeaderValue::from(to - from);
    response.headers_mut().insert(CONTENT_LENGTH, left);
    if !is_head {
        // What is gone meanwhile ends the connection: the length was promised.
        let pieces = stream::try_unfold((file, from), move |(file, from)| async move {
            if from == to {
                return Ok(None);
            }
            let piece = file.read(from, to).await?;
            let piece = piece.ok_or("the file is gone")?;
            let next = from + piece.len() as u64;
            Ok::<_, BoxError>(Some((piece, (file, next))))
        });
        *response.body_mut() = file_body(pieces, permit);
    }
    response
}

/// The head of a file. It is shown as what it is, or saved, and runs nothing: what is on no channel's list has no type.
fn whole(content_type: Option<&str>) -> Response {
    let content_type = content_type.filter(|content_type| is_media(content_type));
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    let unknown = HeaderValue::from_static("application/octet-stream");
    let mut response = Response::new(Body::empty());
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, content_type.unwrap_or(unknown));
    for (name, value) in [
        (CONTENT_DISPOSITION, "inline"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (CACHE_CONTROL, "private, no-store"),
    ] {
        head.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn unavailable(text: &'static str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = plain(status, text, Outcome::Unavailable);
    let seconds = HeaderValue::from_static("5");
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

fn plain(status: StatusCode, text: &'static str, outcome: Outcome) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response.extensions_mut().insert(outcome);
    response
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
