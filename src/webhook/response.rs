//! Responses to webhooks: every 200 is TwiML, and every error short plain text.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};

use crate::dispatch::HandlerFailure;
use crate::telemetry::metrics::Outcome;
use crate::twiml::{self, Document};

/// TwiML with its outcome in the metrics, or an error.
pub(super) type WebhookResult = Result<(Document, Outcome), ErrorResponse>;

/// A response without TwiML.
#[derive(Debug, Clone, Copy)]
pub(super) enum ErrorResponse {
    /// The parameters cannot be read as a message, status callback or event.
    BadForm,
    /// The request has a valid signature, but its body is not a form.
    NotAForm,
    Failed(HandlerFailure),
    /// The server cannot accept the request, with the text of the response.
    Unavailable(&'static str),
    /// The server panicked outside of the handler.
    Panicked,
}

impl ErrorResponse {
    /// Returns status, text and outcome.
    fn parts(self) -> (StatusCode, &'static str, Outcome) {
        // With 500 Twilio shows an error in its debugger and calls the fallback URL.
        const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        // Without a wildcard, so that a new variant does not compile until it has a response here.
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
            Self::Failed(HandlerFailure::Error) => {
                (FAILED, "handler failed\n", Outcome::HandlerError)
            }
            Self::Failed(HandlerFailure::Panic) => (FAILED, "handler failed\n", Outcome::Panic),
            Self::Unavailable(text) => {
                (StatusCode::SERVICE_UNAVAILABLE, text, Outcome::Unavailable)
            }
            Self::Panicked => (FAILED, "internal error\n", Outcome::Panic),
        }
    }
}

/// Returns the outcome of a result in the metrics.
pub(super) fn outcome_of(result: &WebhookResult) -> Outcome {
    match result {
        Ok((_, outcome)) => *outcome,
        Err(cause) => cause.parts().2,
    }
}

/// Creates the response for a result.
pub(super) fn respond(result: WebhookResult, method: &Method) -> Response {
    let (status, content_type, body, outcome) = match result {
        Ok((document, outcome)) => {
            // Match instead of `into_owned`: the empty document is static, and needs no allocation.
            let body = match document.into_xml() {
                Cow::Borrowed(xml) => Body::from(xml),
                Cow::Owned(xml) => Body::from(xml),
            };
            (StatusCode::OK, twiml::CONTENT_TYPE, body, outcome)
        }
        Err(cause) => {
            let (status, text, outcome) = cause.parts();
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
        // Twilio caches responses to GET, and the next message must not get this reply.
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // For `RequestGuard::finish`, which records it.
    response.extensions_mut().insert(outcome);
    response
}
