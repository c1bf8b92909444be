//! [`ApiProblem`]: the response to a request that cannot be fulfilled.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::store::StoreError;

/// Seconds after which a client may try again while the server is overloaded or its store is unavailable.
const RETRY_AFTER_SECONDS: &str = "2";

/// Reason why a request cannot be fulfilled, with the remedy. It contains no addresses, texts or secrets.
#[derive(Debug)]
pub(super) struct ApiProblem {
    status: StatusCode,
    reason: &'static str,
    message: String,
    remedy: String,
    /// Number of the message that has the idempotency key.
    id: Option<i64>,
}

impl ApiProblem {
    pub(super) fn new(
        status: StatusCode,
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
            remedy: remedy.into(),
            id: None,
        }
    }

    /// Creates the problem of a request that is understood, but not allowed or invalid.
    pub(super) fn rejected(
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, reason, message, remedy)
    }

    pub(super) fn bad_request(
        reason: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, message, remedy)
    }

    pub(super) fn unavailable(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            reason,
            message,
            "try again in a few seconds; for a message, with the same Idempotency-Key",
        )
    }

    /// Adds the message that has the request's idempotency key.
    pub(super) fn with_message(self, id: i64) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }
}

/// Path below which the routes are mounted.
pub(crate) const PREFIX: &str = "/v1";

/// Path of a message.
pub(super) fn message_path(id: i64) -> String {
    format!("{PREFIX}/messages/{id}")
}

impl From<StoreError> for ApiProblem {
    fn from(error: StoreError) -> Self {
        // The text of a store error names files and hosts, which are for the operator.
        tracing::warn!(%error, "a request to the API failed, because the store is unavailable");
        Self::unavailable("store_unavailable", "the store is unavailable")
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let mut body =
            json!({"reason": self.reason, "message": self.message, "remedy": self.remedy});
        if let Some(id) = self.id {
            body["id"] = json!(id);
        }
        let mut response = (self.status, format!("{body}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"replyhook\"");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        if let Some(location) = self.id.and_then(|id| message_path(id).parse().ok()) {
            headers.insert(LOCATION, location);
        }
        response
    }
}
