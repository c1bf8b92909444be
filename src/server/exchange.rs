//! One request and its response.

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

use super::Listening;
use crate::connection::{ConnectionState, Phase};

/// Largest body that is written in one piece with its head. TwiML has at most 64 kB.
const MAX_WHOLE_BODY: u64 = 256 * 1024;

/// Answers a request on behalf of the router.
pub(super) fn answer(
    listening: &Arc<Listening>,
    state: &Arc<ConnectionState>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let refusal = if state.request_begins() {
        malformed(&request).map(|(status, reason)| {
            listening.refused(&reason);
            (status, format!("{reason}\n"))
        })
    } else {
        // Not sent any more: the connection's task ends it.
        Some((StatusCode::SERVICE_UNAVAILABLE, String::new()))
    };
    let is_malformed = refusal.is_some();
    let response = if let Some(refusal) = refusal {
        Either::Left(std::future::ready(Ok(refusal.into_response())))
    } else {
        request.extensions_mut().insert(state.clone());
        Either::Right(listening.router.clone().call(request.map(Body::new)))
    };
    let (state, wants_signatures) = (state.clone(), listening.limits.wants_signatures);
    response.map(move |response| {
        response.map(|mut response| {
            let is_verified = state.phase() == Phase::Verified;
            if is_malformed || wants_signatures && !is_verified && is_refusal(response.status()) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                state.refused();
            }
            begin(response, state)
        })
    })
}

/// Why a request does not reach the router. Two `Host`s are one too many: proxies disagree on which of them counts.
fn malformed(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    let hosts = request.headers().get_all(HOST).iter().take(2).count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Some((StatusCode::BAD_REQUEST, "not exactly one Host"));
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        // hyper reads the last one, and would hand out what the others made of a body.
        return Some((
            StatusCode::NOT_IMPLEMENTED,
            "a transfer coding other than chunked",
        ));
    }
    None
}

/// Without a signature only a link to a file leads to anything else, and to a range that it does not have.
fn is_refusal(status: StatusCode) -> bool {
    (status.is_client_error() || status.is_server_error())
        && status != StatusCode::RANGE_NOT_SATISFIABLE
}

/// Begins a response, and notes when its body has ended if that takes more than one write.
fn begin(response: Response, state: Arc<ConnectionState>) -> Response {
    let length = response.body().size_hint().exact();
    let is_streaming = length.is_none_or(|length| length > MAX_WHOLE_BODY);
    state.responds(is_streaming);
    if !is_streaming {
        return response;
    }
    response.map(|body| {
        let ended = StreamEnd(state);
        Body::new(StreamingBody {
            body,
            _ended: ended,
        })
    })
}

/// A body that takes more than one write.
struct StreamingBody {
    body: Body,
    _ended: StreamEnd,
}

struct StreamEnd(Arc<ConnectionState>);

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.0.stream_ended();
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

impl Listening {
    /// Reports a request that reaches no endpoint. If it was Twilio's, a message is lost: it must not go unseen.
    pub(super) fn refused(&self, reason: &dyn Display) {
        self.metrics.malformed_requests.increment(1);
        if let Some(suppressed) = self.malformed.pass() {
            tracing::warn!(%reason, suppressed, "refused: the request is malformed");
        }
    }
}
