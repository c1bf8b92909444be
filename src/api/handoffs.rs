//! `PUT`, `DELETE` and `GET /v1/handoffs/{address}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, Uri};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::json_body::{JsonBody, invalid_field};
use super::problem::ApiProblem;
use super::state::Api;
use super::user_address::{AddressInPath, parse_sender, scope_in_query, user_in_path};
use crate::address::Address;
use crate::forward::parse_ttl;
use crate::reply::is_web_url;
use crate::store::{ActiveHandoff, HandoffRow};

const FIELDS: [&str; 3] = ["url", "ttl", "sender"];

/// Starts a handoff of a user, and returns it. It replaces one that is active.
pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    path: AddressInPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiProblem> {
    let user = user_in_path(path)?;
    let mut json = JsonBody::read(&api, &headers, body, &FIELDS).await?;
    let sender = match json.take_text("sender")? {
        Some(sender) => Some(sender),
        None => scope_in_query(&uri)?.0,
    };
    let sender = sender.map(|sender| parse_sender(&user, &sender));
    let sender = sender.transpose()?;
    let handoff = read_handoff(&api, &mut json)?;
    let store = &api.parts.store;
    let begun = store.begin_handoff(sender.as_ref(), &user, handoff, api.now());
    if begun.await? == 0 {
        return Err(ApiProblem::new(
            StatusCode::NOT_FOUND,
            "no_conversation",
            "no conversation with this user exists: the user has sent no message",
            "check the address and the sender; a handoff needs an inbound message of the user",
        ));
    }
    handoff_response(&api, &user, sender.as_ref()).await
}

/// Returns the handoff of a user.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    path: AddressInPath,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let (user, sender) = user_and_sender(path, &uri)?;
    handoff_response(&api, &user, sender.as_ref()).await
}

/// Ends the handoff of a user. A user who is not handed off stays so.
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    path: AddressInPath,
    uri: Uri,
) -> Result<StatusCode, ApiProblem> {
    let (user, sender) = user_and_sender(path, &uri)?;
    let store = &api.parts.store;
    store.end_handoff(sender.as_ref(), &user, api.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn user_and_sender(
    path: AddressInPath,
    uri: &Uri,
) -> Result<(Address, Option<Address>), ApiProblem> {
    let user = user_in_path(path)?;
    let sender = scope_in_query(uri)?.0;
    let sender = sender.map(|sender| parse_sender(&user, &sender));
    Ok((user, sender.transpose()?))
}

fn read_handoff(api: &Api, json: &mut JsonBody) -> Result<ActiveHandoff, ApiProblem> {
    let url = json.take_text("url")?;
    if let Some(url) = &url {
        if !is_web_url(url) {
            return Err(invalid_field(
                "url",
                "null or an absolute http or https URL",
            ));
        }
        // Twilio would be redirected back to this server, which would redirect again.
        if api.parts.public_url.covers(url) {
            return Err(invalid_field("url", "a URL of another server"));
        }
    }
    let ttl = match json.take_text("ttl")? {
        None => api.parts.handoff_ttl,
        Some(text) => parse_ttl(&text)
            .ok_or_else(|| invalid_field("ttl", "a time up to 720h, such as 12h or 90m"))?,
    };
    Ok(ActiveHandoff { url, ttl })
}

/// Responds with the handoff that ends last, and the list of all.
async fn handoff_response(
    api: &Api,
    user: &Address,
    sender: Option<&Address>,
) -> Result<Response, ApiProblem> {
    let mut rows = api.parts.store.handoffs_of(user, api.now()).await?;
    rows.retain(|row| sender.is_none_or(|sender| row.sender == *sender));
    let all: Vec<Value> = rows.iter().map(|row| describe(user, row)).collect();
    let Some(mut last) = all.first().cloned() else {
        return Err(ApiProblem::new(
            StatusCode::NOT_FOUND,
            "no_handoff",
            "this user is not handed off",
            "start a handoff with PUT",
        ));
    };
    if sender.is_none() {
        last["handoffs"] = Value::Array(all);
    }
    Ok(([(CONTENT_TYPE, "application/json")], format!("{last}\n")).into_response())
}

fn describe(user: &Address, row: &HandoffRow) -> Value {
    let ttl = SignedDuration::try_from(row.handoff.ttl).unwrap_or(SignedDuration::MAX);
    json!({
        "address": user.as_str(),
        "sender": row.sender.as_str(),
        "url": row.handoff.url,
        "ttl": format!("{ttl:#}"),
        "until": row.until.to_string(),
    })
}
