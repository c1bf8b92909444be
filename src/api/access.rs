//! Access to the API: the token, the number of requests in progress, and their duration.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
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
/// Labels of the metric, each a path of the description.
pub(super) const ROUTES: [&str; 5] = [
    "/v1/messages",
    "/v1/messages/{id}",
    "/v1/consents/{address}",
    "/v1/handoffs/{address}",
    "/v1/openapi.json",
];
/// Label of requests to other paths.
pub(super) const OTHER_ROUTE: &str = "other";

/// Passes a request on if it may be, and counts it by its route.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // The template, never the path: that has the address of a user.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = respond(&api, request, next).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    // A path below `/v1` that no route has matches the template of the nested router.
    let route = route.filter(|route| ROUTES.contains(route));
    api.parts
        .metrics
        .api_request(route.unwrap_or(OTHER_ROUTE), response.status());
    response
}

/// Passes a request on, if it has the token and not too many others are in progress.
async fn respond(api: &Api, request: Request, next: Next) -> Response {
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
