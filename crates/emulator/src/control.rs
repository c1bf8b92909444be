//! Control API under `/_emulator`, used by the page, `replyhook chat` and tests. JSON in and out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::sse::{Event as ServerEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control_action::{ControlAction, active_faults};
use super::engine::Engine;
use super::faults::Faults;
use super::links::without_password;
use super::media::MAX_MEDIA_BYTES;
use super::record::{Exchange, MessageView, rfc3339};
use super::scripted_conversation::scripted_conversation;
use super::test_export::{TestLanguage, export_test};
use super::user::{UserMessage, accept_message};
use super::webhook::deliver;

// Ten files, which base64 makes a third larger, and text.
const MAX_BODY_BYTES: usize = MAX_MEDIA_BYTES * 14;
// A year per call.
const MAX_ADVANCE_SECONDS: i64 = 366 * 24 * 3600;
/// Maximum of the parameter `wait_ms`.
const MAX_WAIT_MS: u64 = 60_000;

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/_emulator/config", get(config))
        .route("/_emulator/messages", post(send))
        .route("/_emulator/messages/{sid}/redeliver", post(redeliver))
        .route("/_emulator/conversations", get(conversations))
        .route("/_emulator/conversations/{user}", get(conversation))
        .route("/_emulator/conversations/{user}/read", post(read))
        .route(
            "/_emulator/conversations/{user}/test",
            get(conversation_test),
        )
        .route("/_emulator/exchanges", get(exchanges))
        .route("/_emulator/exchanges/{id}", get(exchange))
        .route("/_emulator/debugger", get(debugger))
        .route("/_emulator/events", get(events))
        .route("/_emulator/faults", get(faults).put(set_faults))
        .route("/_emulator/clock", post(clock))
        .route("/_emulator/reset", post(reset))
        .route("/_emulator/state/{user}", get(state))
        .route("/_emulator/{*path}", any(unknown_endpoint))
        .method_not_allowed_fallback(async || {
            let reason = "method not allowed".to_owned();
            ApiError(StatusCode::METHOD_NOT_ALLOWED, reason)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// Error response: status and explanation.
struct ApiError(StatusCode, String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, json_body(&json!({"error": self.1}))).into_response()
    }
}

fn bad_request(reason: impl Into<String>) -> ApiError {
    ApiError(StatusCode::BAD_REQUEST, reason.into())
}

fn not_found(resource: &str) -> ApiError {
    ApiError(StatusCode::NOT_FOUND, format!("unknown {resource}"))
}

type ApiResult = Result<Response, ApiError>;

fn json_body(value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], text).into_response()
}

#[expect(clippy::unnecessary_wraps, reason = "every endpoint ends with it")]
fn ok(value: &impl Serialize) -> ApiResult {
    Ok(json_body(value))
}

/// Parses a JSON object. Treats `null` as absent, and an empty body as `{}`.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    let parsed: Value =
        serde_json::from_slice(body).map_err(|error| bad_request(error.to_string()))?;
    // Serde would also accept an array for a struct.
    let Value::Object(mut fields) = parsed else {
        return Err(bad_request("expected a JSON object"));
    };
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(fields)).map_err(|error| bad_request(error.to_string()))
}

async fn unknown_endpoint() -> ApiError {
    not_found("endpoint; docs/src/reference/emulator-api.md lists the known ones")
}

async fn config(State(engine): State<Arc<Engine>>) -> ApiResult {
    let options = &engine.options;
    let app = engine.app();
    let deadline = app.as_ref().map(|app| app.deadline().as_millis());
    let debounce = app.as_ref().map(|app| app.debounce().as_millis());
    ok(&json!({
        "account_sid": engine.account.sid.as_str(),
        "auth_token": engine.account.token.expose(),
        "senders": engine.senders(),
        "webhook": without_password(&options.webhook),
        "fallback": options.fallback.as_deref().map(without_password),
        "status_callback": options.status_callback.as_deref().map(without_password),
        "deadline_ms": deadline,
        "pause_ms": debounce,
        "now": rfc3339(engine.now()),
        "app_attached": app.is_some(),
        "store": app.as_ref().map(|app| app.store()),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendQuery {
    #[serde(default)]
    wait_ms: u64,
}

async fn send(
    State(engine): State<Arc<Engine>>,
    query: Result<Query<SendQuery>, QueryRejection>,
    body: Bytes,
) -> ApiResult {
    let Query(SendQuery { wait_ms }) = query.map_err(|error| bad_request(error.body_text()))?;
    if wait_ms > MAX_WAIT_MS {
        return Err(bad_request(format!("wait_ms: at most {MAX_WAIT_MS}")));
    }
    let message: UserMessage = parse(&body)?;
    let record = accept_message(&engine, message)
        .await
        .map_err(bad_request)?;
    let wait = Duration::from_millis(wait_ms);
    ok(&deliver(&engine, record, false, wait).await)
}

async fn redeliver(State(engine): State<Arc<Engine>>, Path(sid): Path<String>) -> ApiResult {
    let message = engine.state().message(&sid).cloned();
    let message = message.filter(|message| message.direction.is_in());
    let message = message.ok_or_else(|| not_found("inbound message"))?;
    let redelivery = ControlAction::Redelivery(sid);
    engine.state().add_action(redelivery);
    ok(&deliver(&engine, message, true, Duration::ZERO).await)
}

#[derive(Serialize)]
struct ConversationView {
    user: String,
    sender: String,
    last: Option<MessageView>,
    unread: usize,
}

async fn conversations(State(engine): State<Arc<Engine>>) -> ApiResult {
    let state = engine.state();
    let mut views: Vec<ConversationView> = Vec::new();
    let mut index_by_user: BTreeMap<&str, usize> = BTreeMap::new();
    // Newest first: the first message found of a user is the last of the conversation.
    for message in state.messages.iter().rev() {
        let index = *index_by_user.entry(&message.user).or_insert_with(|| {
            views.push(ConversationView {
                user: message.user.clone(),
                sender: message.sender.clone(),
                last: Some(message.to_view()),
                unread: 0,
            });
            views.len() - 1
        });
        if message.is_unread && message.is_shown_on_phone() {
            views[index].unread += 1;
        }
    }
    ok(&views)
}

async fn conversation(State(engine): State<Arc<Engine>>, Path(user): Path<String>) -> ApiResult {
    let messages = mark_read(&engine, &user);
    ok(&messages)
}

fn mark_read(engine: &Engine, user: &str) -> Vec<MessageView> {
    let mut state = engine.state();
    let mut views = Vec::new();
    for message in &mut state.messages {
        if message.user == user {
            message.is_unread = false;
            views.push(message.to_view());
        }
    }
    views
}

async fn read(State(engine): State<Arc<Engine>>, Path(user): Path<String>) -> ApiResult {
    mark_read(&engine, &user);
    ok(&json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestQuery {
    #[serde(default)]
    language: TestLanguage,
}

async fn conversation_test(
    State(engine): State<Arc<Engine>>,
    Path(user): Path<String>,
    query: Result<Query<TestQuery>, QueryRejection>,
) -> ApiResult {
    let Query(TestQuery { language }) = query.map_err(|error| bad_request(error.body_text()))?;
    let script = scripted_conversation(&engine, &user).await;
    let webhook = match engine.app() {
        // The bot runs in `dev`, which starts it without a URL.
        Some(_) => None,
        None => Some(without_password(&engine.options.webhook)),
    };
    let source = export_test(&script, language, webhook.as_deref());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(CONTENT_TYPE, text)], source).into_response())
}

#[derive(Deserialize)]
struct ExchangeQuery {
    message_sid: Option<String>,
}

async fn exchanges(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<ExchangeQuery>,
) -> ApiResult {
    let message_sid = query.message_sid.as_deref();
    let is_match = |exchange: &&Exchange| {
        let of_exchange = [&exchange.message_sid, &exchange.in_reply_to];
        message_sid.is_none_or(|sid| of_exchange.into_iter().flatten().any(|of| of == sid))
    };
    // Serialize after releasing the lock: there may be up to 128 MiB.
    let matching: Vec<Exchange> = {
        let state = engine.state();
        state.exchanges.iter().filter(is_match).cloned().collect()
    };
    ok(&matching)
}

async fn exchange(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> ApiResult {
    let state = engine.state();
    let found = state.exchanges.iter().find(|exchange| exchange.id == id);
    ok(found.ok_or_else(|| not_found("exchange"))?)
}

async fn debugger(State(engine): State<Arc<Engine>>) -> ApiResult {
    ok(&engine.state().debugger)
}

async fn events(
    State(engine): State<Arc<Engine>>,
) -> Sse<impl Stream<Item = Result<ServerEvent, Infallible>>> {
    let receiver = engine.events.subscribe();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        // A subscriber that lags has lost events. End its stream, so that it reconnects and reloads everything.
        let event = receiver.recv().await.ok()?;
        let server_event = ServerEvent::default().event(event.name).data(&event.data);
        Some((Ok(server_event), receiver))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

async fn faults(State(engine): State<Arc<Engine>>) -> ApiResult {
    ok(&engine.state().faults)
}

async fn set_faults(State(engine): State<Arc<Engine>>, body: Bytes) -> ApiResult {
    let mut faults: Faults = parse(&body)?;
    faults.keep_secret(&engine.state().faults);
    if let Some(problem) = faults.problem() {
        return Err(bad_request(problem));
    }
    if let Some(app) = engine.app() {
        app.inject_faults(faults.handler_ms, faults.handler_fails);
    }
    engine.change_faults(|current| *current = faults.clone());
    let action = ControlAction::Faults(active_faults(&faults));
    engine.state().add_action(action);
    ok(&faults)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockRequest {
    advance_seconds: i64,
}

async fn clock(State(engine): State<Arc<Engine>>, body: Bytes) -> ApiResult {
    let ClockRequest { advance_seconds } = parse(&body)?;
    if !(0..=MAX_ADVANCE_SECONDS).contains(&advance_seconds) {
        return Err(bad_request(format!(
            "advance_seconds: 0 to {MAX_ADVANCE_SECONDS}"
        )));
    }
    engine
        .clock
        .advance(SignedDuration::from_secs(advance_seconds));
    let action = ControlAction::Clock(advance_seconds);
    engine.state().add_action(action);
    let now = json!({"now": rfc3339(engine.now())});
    engine.emit("clock", &now);
    ok(&now)
}

async fn reset(State(engine): State<Arc<Engine>>) -> ApiResult {
    // The app first: if its store cannot be reset, the page still shows what the store knows.
    if let Some(app) = engine.app() {
        app.reset().await.map_err(|error| {
            ApiError(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("could not reset the server's store: {error}"),
            )
        })?;
        // After the store: if that fails, the page still shows the faults as active.
        app.inject_faults(0, false);
    }
    engine.state().reset();
    engine.emit("reset", &json!({}));
    ok(&json!({}))
}

#[derive(Deserialize)]
struct StateQuery {
    sender: Option<String>,
}

async fn state(
    State(engine): State<Arc<Engine>>,
    Path(user): Path<String>,
    Query(query): Query<StateQuery>,
) -> ApiResult {
    let Some(app) = engine.app() else {
        return ok(&Value::Null);
    };
    let sender = query
        .sender
        .or_else(|| engine.state().latest_sender(&user).map(str::to_owned));
    let Some(sender) = sender else {
        return ok(&Value::Null);
    };
    ok(&app.state(user, sender).await)
}
