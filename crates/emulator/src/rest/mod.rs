//! Messaging part of Twilio's REST API. Official SDKs work with only the base URL changed.
//!
//! Source: Twilio's `OpenAPI` descriptions.

mod call;
mod content;
mod content_message;
mod messages;
mod page_range;
mod response;
mod senders;
mod services;
mod typing;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use self::call::{ApiCall, MAX_PARAMS, is_content_path, is_form, is_sid, parse_call};
use self::response::{RestResponse, TwilioError, not_allowed, ok};
use super::account::random_sid;
use super::engine::Engine;
use super::record::{Exchange, ExchangeKind, ExchangeRequest, ExchangeResponse, whole_ms};
use super::webhook_calls::masked_headers;
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;

pub(super) fn routes() -> Router<Arc<Engine>> {
    let any = axum::routing::any::<_, _, Arc<Engine>>;
    Router::new()
        .route("/2010-04-01/{*path}", any(handle_call))
        .route("/v2/Channels/Senders", any(handle_call))
        .route("/v2/Channels/Senders/{sid}", any(handle_call))
        .route("/v1/Content", any(handle_call))
        .route("/v2/Content", any(handle_call))
        .route("/v1/ContentAndApprovals", any(handle_call))
        .route("/v2/ContentAndApprovals", any(handle_call))
        .route("/v1/Content/{*path}", any(handle_call))
        .route("/v1/Services", get(handle_call))
        .route("/v1/Services/{*path}", any(handle_call))
        .route("/v2/Indicators/Typing.json", post(handle_call))
        .route("/v3/Indicators/Typing.json", post(handle_call))
}

/// Responds to all paths without a route.
pub(super) async fn not_found() -> Response {
    TwilioError::new(404, 20404, "The requested resource was not found").into_response()
}

/// Handles every call: authenticates, routes, and records the exchange.
async fn handle_call(State(engine): State<Arc<Engine>>, parts: Parts, body: Bytes) -> Response {
    let started = std::time::Instant::now();
    let at = engine.now();
    let path = parts.uri.path().trim_matches('/').to_owned();
    // Failures too are recorded below, so that the inspector shows rejected calls.
    if is_content_path(&path) {
        let delay = engine.state().faults.content_delay_ms;
        // Real time: the emulator's clock does not advance by itself in tests, and the caller's timeout is real.
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let result = match parse_call(&engine, &parts, &body, &path) {
        Ok(call) => route(&engine, &call),
        Err(error) => Err(error),
    };
    let (code, mut response) = match result {
        Ok(response) => (None, response),
        Err(error) => (Some(error.code), error.into_response()),
    };
    let headers = [
        ("twilio-request-id", random_sid("RQ")),
        (
            "twilio-request-duration",
            format!("{:.3}", started.elapsed().as_secs_f64()),
        ),
        ("twilio-concurrent-requests", "1".to_owned()),
        ("x-home-region", "us1".to_owned()),
    ];
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    let (head, response_body) = response.into_parts();
    let bytes = axum::body::to_bytes(response_body, usize::MAX).await;
    let bytes = bytes.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // The inspector must not show the token, and a bot may send it in a wrong field or URL.
    let mask_token = |text: &str| text.replace(engine.account.token.expose(), "***");
    let text = mask_token(&text);
    let response_json: Option<Value> = serde_json::from_str(&text).ok();
    let message_sid = find_message_sid(&path, response_json.as_ref());
    let params = FormParams::parse(&body, MAX_PARAMS).ok();
    let params = params.filter(|_| is_form(&parts));
    let (user, in_reply_to) = match message_sid.as_deref() {
        Some(sid) => (user_of(&engine, sid), None),
        None => find_conversation(&engine, &parts, params.as_ref()).await,
    };
    if let Some(code) = code
        && parts.method == Method::POST
    {
        let inbound_sid = in_reply_to
            .clone()
            .or_else(|| latest_inbound(&engine, user.as_deref()?));
        report_refusal(&engine, code, inbound_sid.as_deref(), &path);
    }
    let kind = if path.contains("/Media") {
        ExchangeKind::Media
    } else {
        ExchangeKind::Rest
    };
    let request = ExchangeRequest {
        method: parts.method.to_string(),
        url: mask_token(&format!("{}{}", engine.origin, parts.uri)),
        headers: masked_headers(&parts.headers),
        body: mask_token(&String::from_utf8_lossy(&body)),
    };
    engine.record_exchange(Exchange {
        message_sid,
        in_reply_to,
        user,
        response: Some(ExchangeResponse {
            status: head.status.as_u16(),
            headers: masked_headers(&head.headers),
            body: text,
        }),
        ms: whole_ms(started.elapsed()),
        error_code: code,
        params: params
            .iter()
            .flat_map(FormParams::iter)
            .map(|(name, value)| (name.to_owned(), mask_token(value)))
            .collect(),
        ..Exchange::new(kind, at, request)
    });
    Response::from_parts(head, bytes.into())
}

/// Returns the user and the inbound message of a call that has no message of its own: a refused message, a lookup, a
/// template, or a typing indicator.
async fn find_conversation(
    engine: &Engine,
    parts: &Parts,
    params: Option<&FormParams>,
) -> (Option<String>, Option<String>) {
    let query = parts.uri.query().unwrap_or_default();
    let query = FormParams::parse(query.as_bytes(), MAX_PARAMS).ok();
    let param = |name: &str| {
        let mut sources = [params, query.as_ref()].into_iter().flatten();
        sources.find_map(|params| params.get(name).map(str::to_owned))
    };
    // A typing indicator names its message. Of all others only the app knows which message they answer: a late reply may
    // follow a newer one.
    let user = param("To");
    let inbound_sid = match (param("messageId"), engine.app()) {
        (Some(sid), _) => Some(sid),
        (None, Some(app)) => app.message_being_answered(user.clone()).await,
        (None, None) => None,
    };
    let author = inbound_sid.as_deref().and_then(|sid| user_of(engine, sid));
    // An unknown SID, such as one of an earlier run, has no message here.
    let inbound_sid = inbound_sid.filter(|_| author.is_some());
    (author.or(user), inbound_sid)
}

/// Returns the user of a message.
fn user_of(engine: &Engine, sid: &str) -> Option<String> {
    let state = engine.state();
    state.message(sid).map(|message| message.user.clone())
}

/// Returns the message that a user has sent last.
fn latest_inbound(engine: &Engine, user: &str) -> Option<String> {
    let state = engine.state();
    let mut messages = state.messages.iter().rev();
    let latest = messages.find(|message| message.user == user && message.direction.is_in());
    latest.map(|message| message.sid.clone())
}

/// Adds a refused call to the debugger, with the inbound message that it answers.
fn report_refusal(engine: &Engine, code: u32, inbound_sid: Option<&str>, path: &str) {
    let url = format!("{}/{path}", engine.origin);
    let detail = Some("the bot's REST call was refused");
    engine.add_debugger_entry(ErrorCode(code), detail, inbound_sid, Some(&url));
}

/// Returns the SID of the message that a call is about, from the path or the response.
fn find_message_sid(path: &str, response_json: Option<&Value>) -> Option<String> {
    let path_sid = path
        .split(['/', '.'])
        .find(|part| part.len() == 34 && (part.starts_with("SM") || part.starts_with("MM")));
    let response_sid = response_json.and_then(|json| json["sid"].as_str());
    let response_sid = response_sid.filter(|sid| sid.starts_with("SM") || sid.starts_with("MM"));
    path_sid.or(response_sid).map(str::to_owned)
}

fn route(engine: &Arc<Engine>, call: &ApiCall) -> RestResponse {
    let path = call.path.clone();
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["2010-04-01", "Accounts", _] => ok(200, &engine.account.json()),
        ["2010-04-01", "Accounts", _, "Messages.json"] => match call.method {
            Method::POST => messages::create(engine, call),
            Method::GET => messages::list(engine, call),
            _ => Err(not_allowed()),
        },
        ["2010-04-01", "Accounts", _, "IncomingPhoneNumbers.json"] => {
            senders::list_numbers(engine, call)
        }
        ["2010-04-01", "Accounts", _, "IncomingPhoneNumbers", number] => {
            senders::number_item(engine, call, number.trim_end_matches(".json"))
        }
        ["2010-04-01", "Accounts", _, "Messages", message] => {
            let message = message.trim_end_matches(".json");
            messages::item(engine, call, message)
        }
        [
            "2010-04-01",
            "Accounts",
            _,
            "Messages",
            message,
            "Feedback.json",
        ] => messages::feedback(engine, call, message),
        [
            "2010-04-01",
            "Accounts",
            _,
            "Messages",
            message,
            "Media.json",
        ] => messages::media_list(engine, call, message),
        [
            "2010-04-01",
            "Accounts",
            _,
            "Messages",
            message,
            "Media",
            file,
        ] => messages::media_file(engine, call, message, file),
        ["v2", "Channels", "Senders"] => senders::list(engine, call),
        ["v2", "Channels", "Senders", sender] => senders::item(engine, call, sender),
        [_, "Content" | "ContentAndApprovals"] => content::collection(engine, call),
        ["v1", "Content", template] => content::item(engine, call, template),
        ["v1", "Content", template, "ApprovalRequests"] => {
            content::approval(engine, call, template)
        }
        ["v1", "Content", template, "ApprovalRequests", "whatsapp"] => {
            content::submit(engine, call, template)
        }
        ["v1", "Services"] => services::list(engine, call),
        ["v1", "Services", service] if is_sid(service, "MG") => {
            services::item(engine, call, service)
        }
        [version, "Indicators", "Typing.json"] => typing::create(engine, call, version),
        _ => Err(TwilioError::not_found(&path)),
    }
}
