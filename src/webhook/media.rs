//! `/media/{token}`: serves the file of a link to any client that has the link.
//!
//! GET and HEAD, with single ranges. Signatures are not checked, since Twilio does not sign these requests. Unknown,
//! expired and malformed links get the same response.

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

use super::file_body::file_body;
use super::range::{RequestedRange, parse_range};
use super::webhooks::Webhooks;
use crate::media::{FetchedFile, LinkContent, LinkError, LinkPermit, StoredFile};
use crate::reply::kinds::is_media;
use crate::telemetry::metrics::Outcome;
use replyhook_core::BoxError;

pub(super) async fn media(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain_response(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET or HEAD\n",
            Outcome::RejectedMethod,
        );
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    // From the end of the path, because the prefix of `PUBLIC_URL` may stand before `/media`.
    let path = uri.path().trim_end_matches('/');
    let token = path.rsplit('/').next().unwrap_or_default();
    let is_head = method == Method::HEAD;
    match webhooks.media.resolve(token).await {
        Ok((LinkContent::Stored { file, content_type }, permit)) => {
            stored_file_response(file, permit, content_type.as_deref(), &headers, is_head)
        }
        Ok((LinkContent::Twilio(file), permit)) => twilio_file_response(file, permit, is_head),
        Err(LinkError::Unknown) => {
            plain_response(StatusCode::NOT_FOUND, "not found\n", Outcome::NotFound)
        }
        Err(LinkError::Busy) => {
            if let Some(suppressed) = webhooks.warnings.media.try_log() {
                tracing::warn!(
                    suppressed,
                    "rejected a request for a file: too many files are being read at the same time"
                );
            }
            unavailable_response("overloaded\n")
        }
        Err(LinkError::Store(error)) => {
            webhooks.store_report.record_failure("resolve_link", &error);
            unavailable_response("store unavailable\n")
        }
        Err(LinkError::Fetch(error)) => {
            if let Some(suppressed) = webhooks.warnings.media.try_log() {
                tracing::warn!(suppressed, %error, "could not fetch the file of a media link from Twilio");
            }
            plain_response(
                StatusCode::BAD_GATEWAY,
                "Twilio does not give the file\n",
                Outcome::Unavailable,
            )
        }
    }
}

// Without ranges: each request fetches the file from Twilio from its start.
fn twilio_file_response(file: FetchedFile, permit: LinkPermit, is_head: bool) -> Response {
    let file_type = file.file_type();
    // The sniffed type wins over the declared one, which a user chose.
    let content_type = file_type.sniffed.or(file_type.declared.as_deref());
    let mut response = file_response(content_type);
    if let Some(length) = file.length() {
        let length = HeaderValue::from(length);
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    *response.body_mut() = if is_head {
        // A stream of unknown length: `Body::empty` would make hyper send `Content-Length: 0` if the length is unknown.
        Body::from_stream(stream::empty::<Result<Vec<u8>, BoxError>>())
    } else {
        let chunks = stream::try_unfold(file, |mut file| async move {
            let chunk = file.chunk().await?;
            Ok(chunk.map(|chunk| (chunk, file)))
        });
        file_body(chunks, permit)
    };
    response
}

fn stored_file_response(
    file: StoredFile,
    permit: LinkPermit,
    content_type: Option<&str>,
    headers: &HeaderMap,
    is_head: bool,
) -> Response {
    let length = file.length;
    // Without an ETag or a date no `If-Range` can match, and RFC 9110 (13.1.5) then requires the whole file.
    let requested = headers
        .get(RANGE)
        .filter(|_| !headers.contains_key(IF_RANGE));
    let requested = parse_range(requested.and_then(|value| value.to_str().ok()), length);
    let mut response = file_response(content_type);
    let response_headers = response.headers_mut();
    response_headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (from, to) = match requested {
        RequestedRange::Whole => (0, length),
        RequestedRange::Part { from, to } => {
            let text = format!("bytes {from}-{}/{length}", to - 1);
            response_headers.insert(CONTENT_RANGE, ascii_header(&text));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (from, to)
        }
        RequestedRange::Outside => {
            let mut response = plain_response(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "no such range\n",
                Outcome::Ok,
            );
            let text = format!("bytes */{length}");
            response
                .headers_mut()
                .insert(CONTENT_RANGE, ascii_header(&text));
            return response;
        }
    };
    let content_length = HeaderValue::from(to - from);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, content_length);
    if !is_head {
        // If the file expires while it is read, end with an error, which closes the connection: `Content-Length` has
        // been sent, and a shorter body must not look complete.
        let chunks = stream::try_unfold((file, from), move |(file, from)| async move {
            if from == to {
                return Ok(None);
            }
            let chunk = file.read(from, to).await?;
            let chunk = chunk.ok_or("the file has expired")?;
            let next = from + chunk.len() as u64;
            Ok::<_, BoxError>(Some((chunk, (file, next))))
        });
        *response.body_mut() = file_body(chunks, permit);
    }
    response
}

/// Creates the response for a file, without its body.
// The server's origin must never serve a page or a script of a user. Only media types of a channel are sent as such,
// and the headers keep a browser from guessing a type, running anything, or caching the file.
fn file_response(content_type: Option<&str>) -> Response {
    let content_type = content_type.filter(|content_type| is_media(content_type));
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    let unknown = HeaderValue::from_static("application/octet-stream");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(unknown));
    for (name, value) in [
        (CONTENT_DISPOSITION, "inline"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (CACHE_CONTROL, "private, no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn unavailable_response(text: &'static str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = plain_response(status, text, Outcome::Unavailable);
    let seconds = HeaderValue::from_static("5");
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

fn plain_response(status: StatusCode, text: &'static str, outcome: Outcome) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response.extensions_mut().insert(outcome);
    response
}

fn ascii_header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
