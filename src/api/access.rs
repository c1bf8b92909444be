//! Access to the API: the token, the number of requests in progress, and their duration.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::problem::ApiProblem;
use super::state::Api;
use super::token::AccessToken;

/// Maximum duration of a request. A template may have to be fetched from Twilio before a message is queued.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Scheme of the `Authorization` header.
const SCHEME: &str = "Bearer";

/// Passes a request on, if it has the token and not too many others are in progress.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if !has_token(request.headers(), &api.parts.token) {
        return ApiProblem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the request has no valid token",
            "send the header Authorization: Bearer with the value of admin.token",
        )
        .into_response();
    }
    // After the token, so that clients without it cannot keep others out.
    let Ok(_permit) = api.in_flight.try_acquire() else {
        return ApiProblem::unavailable("overloaded", "too many requests are in progress")
            .into_response();
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiProblem::unavailable("timeout", "the request took too long").into_response(),
    }
}

fn has_token(headers: &HeaderMap, token: &AccessToken) -> bool {
    // Of two headers, a proxy may have checked the other one.
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    parts.is_some_and(|(scheme, text)| scheme.eq_ignore_ascii_case(SCHEME) && token.is(text.trim()))
}
