//! What goes back to Twilio: every 200 is TwiML, every refusal short plain text. One table from cause to answer.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};

use crate::dispatch::Failure;
use crate::telemetry::metrics::Outcome;
use crate::twiml::{self, Document};

/// TwiML with its label, or why there is none.
pub(super) type Answer = Result<(Document, Outcome), Cause>;

/// Why a request gets no TwiML.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// Its pairs are no message.
    BadForm,
    /// It is vouched for, and yet no form.
    NotAForm,
    Failed(Failure),
    /// Overloaded, draining or not started, in words.
    Unavailable(&'static str),
    /// Caught outside of the handler.
    Panicked,
}

impl Cause {
    /// Status, text and label: a new cause does not compile without them.
    fn answer(self) -> (StatusCode, &'static str, Outcome) {
        const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        match self {
            Self::BadForm => (
                StatusCode::BAD_REQUEST,
                "malformed message\n",
                Outcome::BadForm,
            ),
            Self::NotAForm => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not a form\n",
                Outcome::RejectedBody,
            ),
            Self::Failed(Failure::Error) => (FAILED, "handler failed\n", Outcome::HandlerError),
            Self::Failed(Failure::Panic) => (FAILED, "handler failed\n", Outcome::Panic),
            Self::Unavailable(text) => {
                (StatusCode::SERVICE_UNAVAILABLE, text, Outcome::Unavailable)
            }
            Self::Panicked => (FAILED, "internal error\n", Outcome::Panic),
        }
    }
}

/// The response of an answer.
pub(super) fn respond(answer: Answer, method: &Method) -> Response {
    let (status, content_type, body, outcome) = match answer {
        Ok((document, outcome)) => {
            let body = match document.into_xml() {
                Cow::Borrowed(xml) => Body::from(xml),
                Cow::Owned(xml) => Body::from(xml),
            };
            (StatusCode::OK, twiml::CONTENT_TYPE, body, outcome)
        }
        Err(cause) => {
            let (status, text, outcome) = cause.answer();
            (
                status,
                "text/plain; charset=utf-8",
                Body::from(text),
                outcome,
            )
        }
    };
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
