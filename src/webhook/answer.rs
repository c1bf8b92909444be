//! What goes back to Twilio: every 200 is TwiML, every refusal short plain text. One table from cause to answer.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};

use crate::dispatch::Failure;
use crate::telemetry::metrics::Outcome;
use crate::twiml::{self, Document};

/// Why a verified request gets no TwiML.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// Its pairs are no message.
    BadForm,
    /// It is vouched for, and yet no form.
    NotAForm,
    Failed(Failure),
    /// Overloaded, draining or not started.
    Unavailable,
    /// Caught outside of the handler.
    Panicked,
}

impl Cause {
    /// Status, text and label: a new cause does not compile without them.
    fn answer(self) -> (StatusCode, &'static str, Outcome) {
        match self {
            Self::BadForm => (
                StatusCode::BAD_REQUEST,
                "malformed message\n",
                Outcome::BadForm,
            ),
            Self::NotAForm => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not a form\n",
                Outcome::RefusedBody,
            ),
            Self::Failed(Failure::Error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler failed\n",
                Outcome::HandlerError,
            ),
            Self::Failed(Failure::Panic) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler failed\n",
                Outcome::Panic,
            ),
            Self::Failed(Failure::Overflow) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "reply too long\n",
                Outcome::Overflow,
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable\n",
                Outcome::Unavailable,
            ),
            Self::Panicked => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal error\n",
                Outcome::Panic,
            ),
        }
    }
}

/// 200 with a document.
pub(super) fn document(document: Document, method: &Method, outcome: Outcome) -> Response {
    let body = match document.into_xml() {
        Cow::Borrowed(xml) => Body::from(xml),
        Cow::Owned(xml) => Body::from(xml),
    };
    response(StatusCode::OK, twiml::CONTENT_TYPE, body, method, outcome)
}

/// A refusal or failure.
pub(super) fn refusal(cause: Cause, method: &Method) -> Response {
    let (status, text, outcome) = cause.answer();
    response(
        status,
        "text/plain; charset=utf-8",
        Body::from(text),
        method,
        outcome,
    )
}

/// A refusal or failure with a text of its own.
pub(super) fn refusal_with(cause: Cause, text: &'static str, method: &Method) -> Response {
    let (status, _, outcome) = cause.answer();
    response(
        status,
        "text/plain; charset=utf-8",
        Body::from(text),
        method,
        outcome,
    )
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    method: &Method,
    outcome: Outcome,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if *method == Method::GET {
        // Twilio caches the answers to GET.
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response.extensions_mut().insert(outcome);
    response
}
