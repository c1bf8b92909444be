//! The HTTP API on the private listener: outbound messages, consents and handoffs for programs in any language.
//!
//! Every request needs `admin.token`. The routes are described by `openapi.json`, which `GET /v1/openapi.json` returns.

mod access;
mod consents;
mod handoffs;
mod json_body;
mod messages;
mod new_message;
mod problem;
mod senders;
mod state;
mod token;
mod user_address;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;

pub(crate) use problem::PREFIX;
pub(crate) use senders::AllowedSenders;
pub(crate) use state::{Api, ApiParts};
pub(crate) use token::AccessToken;

use problem::ApiProblem;

/// Description of the API, the forward requests and the events.
const OPENAPI: &str = include_str!("openapi.json");

pub(crate) fn router(api: Arc<Api>) -> Router {
    for route in access::ROUTES.into_iter().chain([access::OTHER_ROUTE]) {
        api.parts.metrics.add_api_route(route);
    }
    Router::new()
        .route("/messages", post(messages::create))
        .route("/messages/{id}", get(messages::show))
        .route(
            "/consents/{address}",
            get(consents::show).put(consents::record),
        )
        .route(
            "/handoffs/{address}",
            get(handoffs::show)
                .put(handoffs::begin)
                .delete(handoffs::end),
        )
        .route("/openapi.json", get(openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Around the fallback too: without the token, a client does not learn which paths exist.
        .layer(from_fn_with_state(api.clone(), access::check))
        .with_state(api)
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn wrong_method() -> ApiProblem {
    ApiProblem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        "the path has no such method",
        "see the header Allow, or GET /v1/openapi.json",
    )
}

async fn unknown_path() -> ApiProblem {
    ApiProblem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        "the API has no such path",
        "see GET /v1/openapi.json for the paths",
    )
}
