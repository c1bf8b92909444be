//! One HTTP exchange: a request, its checks, and its response.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use tower::Service;

use replyhook_core::signature::layer::ConnectionHooks;

use super::listener_state::ListenerState;
use crate::connection::{ConnectionState, Phase};

// A body of known length up to this size counts as written in one piece with its head. TwiML has at most 64 kB.
const MAX_WHOLE_BODY: u64 = 256 * 1024;

/// Checks a request, passes it to the router, and prepares the response.
pub(super) fn serve_request(
    listener: &Arc<ListenerState>,
    state: &Arc<ConnectionState>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let rejection = if state.begin_request() {
        check_request(&request).map(|(status, reason)| {
            listener.report_malformed(&reason);
            (status, format!("{reason}\n"))
        })
    } else {
        // The connection was evicted while its head was read. The task ends at its next poll, so the request must not
        // reach the router.
        Some((StatusCode::SERVICE_UNAVAILABLE, String::new()))
    };
    let has_skipped_router = rejection.is_some();
    let response = if let Some(rejection) = rejection {
        Either::Left(std::future::ready(Ok(rejection.into_response())))
    } else {
        // The signature layer finds the connection here, and reports verified requests to it.
        let hooks: Arc<dyn ConnectionHooks> = state.clone();
        request.extensions_mut().insert(hooks);
        Either::Right(listener.router.clone().call(request.map(Body::new)))
    };
    let (state, requires_signatures) = (state.clone(), listener.limits.requires_signatures);
    response.map(move |response| {
        response.map(|mut response| {
            // Read before `track_response`, which moves on from `Phase::Verified`.
            let is_verified = state.phase() == Phase::Verified;
            if has_skipped_router
                || requires_signatures && !is_verified && is_rejection(response.status())
            {
                // A rejected client must not hold a connection. A malformed request closes it on the private listener
                // too.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                state.record_rejection();
            }
            track_response(response, state)
        })
    })
}

/// Returns status and reason if the request must not reach the router.
fn check_request(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    // Proxies disagree on which of two `Host` headers counts, so such a request could be routed differently here. Two
    // are enough to decide.
    let hosts = request.headers().get_all(HOST).iter().take(2).count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Some((StatusCode::BAD_REQUEST, "not exactly one Host"));
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        // hyper decodes only a final `chunked` and would pass on a body still encoded by the other codings.
        return Some((
            StatusCode::NOT_IMPLEMENTED,
            "a transfer coding other than chunked",
        ));
    }
    None
}

/// Returns true for the status of a rejected request.
// Without a signature only a media link succeeds. A 416 belongs to a valid link with a range beyond the file's end.
fn is_rejection(status: StatusCode) -> bool {
    (status.is_client_error() || status.is_server_error())
        && status != StatusCode::RANGE_NOT_SATISFIABLE
}

/// Records the start of a response, and wraps a large or streaming body to record its end.
fn track_response(response: Response, state: Arc<ConnectionState>) -> Response {
    // A body without an exact length is a stream from the store or from Twilio, which can pause for any time.
    let length = response.body().size_hint().exact();
    let is_streaming = length.is_none_or(|length| length > MAX_WHOLE_BODY);
    state.begin_response(is_streaming);
    if !is_streaming {
        return response;
    }
    response.map(|body| {
        let end = StreamEnd(state);
        Body::new(StreamingBody { body, _end: end })
    })
}

/// A body that records its end when it is dropped.
struct StreamingBody {
    body: Body,
    // Fields drop in this order: the body is gone when the end is recorded. hyper drops the body after its last frame,
    // and also if the connection breaks.
    _end: StreamEnd,
}

struct StreamEnd(Arc<ConnectionState>);

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.0.end_stream();
    }
}

impl HttpBody for StreamingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl ListenerState {
    /// Counts and logs a malformed request.
    // No endpoint sees it, so no other metric or log line shows it. If it came from Twilio, a message is lost.
    pub(super) fn report_malformed(&self, reason: &dyn Display) {
        self.metrics.malformed_requests.inc();
        if let Some(suppressed) = self.malformed_warnings.try_log() {
            tracing::warn!(%reason, suppressed, "rejected: the request is malformed");
        }
    }

    /// Counts and logs a request whose head exceeds a limit.
    // Logged as malformed as well, with the remedy: a GET of Twilio's with a long message looks like this.
    pub(super) fn report_too_large(&self, reason: &dyn Display) {
        self.report_malformed(&format_args!(
            "{reason}: choose POST for the webhook in Twilio's console, or raise server.max_header_bytes, \
             server.max_headers or server.max_uri_bytes"
        ));
    }
}
