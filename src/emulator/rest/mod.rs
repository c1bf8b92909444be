//! Messaging part of Twilio's REST API. Official SDKs work with only the base URL changed.
//!
//! Source: Twilio's `OpenAPI` descriptions.

mod content;
mod messages;
mod senders;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::account::{SENDERS, random_sid};
use super::engine::Engine;
use super::faults::Faults;
use super::media;
use super::record::{Exchange, ExchangeKind, ExchangeRequest, ExchangeResponse, whole_ms};
use super::webhook_calls::masked_headers;
use crate::error_code::ErrorCode;
use crate::form::FormParams;

// More than any call of the API has.
const MAX_PARAMS: usize = 512;

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

/// Authenticated and parsed request.
pub(super) struct ApiCall {
    method: Method,
    /// Path without leading and trailing slashes.
    path: String,
    query: FormParams,
    /// Parameters of a form body; empty for JSON.
    form: FormParams,
    json: Option<Value>,
}

/// Error response in the format of Twilio's API.
#[derive(Debug)]
pub(super) struct TwilioError {
    status: u16,
    code: u32,
    message: String,
}

impl TwilioError {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// Creates a 400 error, for an invalid parameter.
    fn bad_request(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    fn not_found(path: &str) -> Self {
        let message = format!("The requested resource /{path} was not found");
        Self::new(404, 20404, message)
    }
}

impl IntoResponse for TwilioError {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        });
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, json_body(&body)).into_response();
        let headers = response.headers_mut();
        if self.status == 401 {
            let realm = HeaderValue::from_static("Basic realm=\"Twilio API\"");
            headers.insert(WWW_AUTHENTICATE, realm);
        }
        if self.status == 429 {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

type RestResponse = Result<Response, TwilioError>;

fn json_body(value: &Value) -> impl IntoResponse + use<> {
    let json = HeaderValue::from_static("application/json;charset=utf-8");
    ([(CONTENT_TYPE, json)], value.to_string())
}

#[expect(clippy::unnecessary_wraps, reason = "every call ends with it")]
fn ok(status: u16, value: &Value) -> RestResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok((status, json_body(value)).into_response())
}

#[expect(clippy::unnecessary_wraps, reason = "every call ends with one like it")]
fn no_content() -> RestResponse {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Handles every call: authenticates, routes, and records the exchange.
async fn handle_call(State(engine): State<Arc<Engine>>, parts: Parts, body: Bytes) -> Response {
    let started = std::time::Instant::now();
    let at = engine.now();
    let path = parts.uri.path().trim_matches('/').to_owned();
    // Failures too are recorded below, so that the inspector shows rejected calls.
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
    let user = message_sid.as_deref().and_then(|sid| {
        engine
            .state()
            .message(sid)
            .map(|message| message.user.clone())
    });
    let params = FormParams::parse(&body, MAX_PARAMS).ok();
    let params = params.filter(|_| is_form(&parts));
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

/// Returns the SID of the message that a call is about, from the path or the response.
fn find_message_sid(path: &str, response_json: Option<&Value>) -> Option<String> {
    let path_sid = path
        .split(['/', '.'])
        .find(|part| part.len() == 34 && (part.starts_with("SM") || part.starts_with("MM")));
    let response_sid = response_json.and_then(|json| json["sid"].as_str());
    let response_sid = response_sid.filter(|sid| sid.starts_with("SM") || sid.starts_with("MM"));
    path_sid.or(response_sid).map(str::to_owned)
}

fn is_form(parts: &Parts) -> bool {
    let content_type = parts.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

fn parse_call(
    engine: &Engine,
    parts: &Parts,
    body: &Bytes,
    path: &str,
) -> Result<ApiCall, TwilioError> {
    // The `rest_error` fault comes first: it also affects calls with wrong credentials.
    if let Some(fault) = engine.change_faults(Faults::next_rest_error) {
        let code = fault.code.unwrap_or(20_000 + u32::from(fault.status));
        let meaning = ErrorCode(code).meaning().unwrap_or("as ordered");
        return Err(TwilioError::new(fault.status, code, meaning));
    }
    let unreadable = || TwilioError::bad_request(20001, "the parameters cannot be read");
    let query = parts.uri.query().unwrap_or_default();
    let query = FormParams::parse(query.as_bytes(), MAX_PARAMS).map_err(|_| unreadable())?;
    let (form, json) = if is_form(parts) {
        let form = FormParams::parse(body, MAX_PARAMS).map_err(|_| unreadable())?;
        (form, None)
    } else if body.is_empty() {
        (FormParams::default(), None)
    } else {
        let json = serde_json::from_slice(body).map_err(|_| unreadable())?;
        (FormParams::default(), Some(json))
    };
    let call = ApiCall {
        method: parts.method.clone(),
        path: path.to_owned(),
        query,
        form,
        json,
    };
    let authorization = parts.headers.get(AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    if is_authorized(engine, authorization, path) {
        Ok(call)
    } else {
        Err(TwilioError::new(401, 20003, "Authenticate"))
    }
}

/// Returns whether the credentials are valid: the account SID, or any well-formed API key SID, with the auth token.
fn is_authorized(engine: &Engine, authorization: Option<&str>, path: &str) -> bool {
    let Some((scheme, login)) = authorization.and_then(|text| text.split_once(' ')) else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let login = STANDARD.decode(login.trim()).unwrap_or_default();
    let login = String::from_utf8(login).unwrap_or_default();
    let Some((user, password)) = login.split_once(':') else {
        return false;
    };
    let account = engine.account.sid;
    // The emulator creates no API keys. A bot configured with one must use the auth token as the key's secret.
    let is_known_user = user == account.as_str() || user.starts_with("SK") && user.len() == 34;
    // The newer APIs have no account in the path.
    let mut parts = path
        .split('/')
        .skip_while(|part| *part != "Accounts")
        .skip(1);
    let account_in_path = parts.next().map(|name| name.trim_end_matches(".json"));
    let is_own_account = account_in_path.is_none_or(|sid| sid == account.as_str());
    is_known_user && is_own_account && password == engine.account.token.expose()
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
        ["v1", "Content", template, "ApprovalRequests"]
        | ["v1", "Content", template, "ApprovalRequests", "whatsapp"] => {
            content::approval(engine, call, template)
        }
        ["v1", "Services"] => ok(200, &services_json(&path)),
        ["v1", "Services", service] if is_sid(service, "MG") => ok(200, &service_json(service)),
        [_, "Indicators", "Typing.json"] => typing(engine, call),
        _ => Err(TwilioError::not_found(&path)),
    }
}

fn not_allowed() -> TwilioError {
    TwilioError::new(405, 20004, "Method not allowed")
}

fn is_sid(text: &str, prefix: &str) -> bool {
    text.len() == 34
        && text.starts_with(prefix)
        && text[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

// Empty, although every well-formed SID exists: the emulator does not store services that it could list.
fn services_json(path: &str) -> Value {
    json!({"services": [], "meta": paging_meta("services", path)})
}

fn service_json(service: &str) -> Value {
    json!({
        "sid": service,
        "friendly_name": "A service of the emulator",
        "inbound_request_url": null,
        "fallback_url": null,
        "status_callback": null,
        "use_inbound_webhook_on_number": true,
        "url": format!("https://messaging.twilio.com/v1/Services/{service}"),
    })
}

/// Returns the paging object of the v1 and v2 APIs, with everything on one page.
fn paging_meta(key: &str, path: &str) -> Value {
    let url = format!("/{path}?PageSize=50&Page=0");
    json!({
        "page": 0, "page_size": 50, "first_page_url": url, "previous_page_url": null, "url": url,
        "next_page_url": null, "key": key,
    })
}

/// Handles a typing indicator, and reports it to the page.
fn typing(engine: &Engine, call: &ApiCall) -> RestResponse {
    let json = call.json.as_ref();
    let field = |name: &str| {
        let text = json.and_then(|json| json[name].as_str());
        text.or_else(|| call.form.get(name)).map(str::to_owned)
    };
    let channel = field("channel").unwrap_or_default();
    if !channel.eq_ignore_ascii_case("whatsapp") {
        return Err(TwilioError::bad_request(20001, "channel: WHATSAPP"));
    }
    let message = field("messageId").unwrap_or_default();
    let state = engine.state();
    let found = state.message(&message).filter(|m| m.direction.is_in());
    let Some(user) = found.map(|message| message.user.clone()) else {
        return Err(TwilioError::new(
            404,
            20404,
            "messageId: unknown inbound message",
        ));
    };
    // `emit` serializes JSON; release the lock first.
    drop(state);
    engine.emit("typing", &json!({"user": user}));
    ok(200, &json!({"success": true}))
}

/// Redirects to a media file, or applies the `media_404` fault.
fn media_redirect(engine: &Engine, file: &str) -> RestResponse {
    if engine.change_faults(Faults::take_media_fault) {
        return Err(TwilioError::not_found(file));
    }
    Ok(media::redirect(engine, file))
}

/// Returns the senders that are phone numbers: those without a channel prefix.
fn phone_numbers(engine: &Engine) -> Vec<String> {
    let senders = engine.senders();
    senders
        .into_iter()
        .filter(|sender| !sender.contains(':'))
        .collect()
}

/// Returns a SID for a sender. The same sender always has the same SID.
fn sid_for(prefix: &str, sender: &str) -> String {
    // Default senders have numbers 1 and 2; others a hash, since they come and go.
    let position = SENDERS.iter().position(|default| *default == sender);
    let number = position.map_or_else(
        || {
            sender.bytes().fold(7_u64, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(byte.into())
            })
        },
        |index| index as u64 + 1,
    );
    format!("{prefix}{number:032x}")
}
