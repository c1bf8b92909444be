//! Calls of the REST API: authentication, and parameters of every format.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use serde_json::Value;

use super::response::TwilioError;
use crate::engine::Engine;
use crate::faults::{Faults, RestFault};
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;

// More than any call of the API has.
pub(super) const MAX_PARAMS: usize = 512;

/// Authenticated and parsed request.
pub(super) struct ApiCall {
    pub(super) method: Method,
    /// Path without leading and trailing slashes.
    pub(super) path: String,
    pub(super) query: FormParams,
    /// Parameters of a form body; empty for JSON.
    pub(super) form: FormParams,
    pub(super) json: Option<Value>,
}

pub(super) fn is_form(parts: &Parts) -> bool {
    let content_type = parts.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

pub(super) fn parse_call(
    engine: &Engine,
    parts: &Parts,
    body: &Bytes,
    path: &str,
) -> Result<ApiCall, TwilioError> {
    // The `rest_error` fault comes first: it also affects calls with wrong credentials.
    if let Some(fault) = engine.change_faults(Faults::next_rest_error) {
        return Err(injected_error(&fault));
    }
    let content_error = || engine.change_faults(Faults::next_content_error);
    if let Some(fault) = is_content_path(path).then(content_error).flatten() {
        return Err(injected_error(&fault));
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
    check_login(engine, authorization, &call.method, path)?;
    Ok(call)
}

fn injected_error(fault: &RestFault) -> TwilioError {
    let code = fault.code.unwrap_or(20_000 + u32::from(fault.status));
    let meaning = ErrorCode(code).meaning().unwrap_or("as ordered");
    TwilioError::new(fault.status, code, meaning)
}

/// Returns whether a path is one of the Content API.
pub(super) fn is_content_path(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    matches!(parts.next(), Some("Content" | "ContentAndApprovals"))
}

/// Checks user and password: the account SID with the auth token, or an API key.
fn check_login(
    engine: &Engine,
    authorization: Option<&str>,
    method: &Method,
    path: &str,
) -> Result<(), TwilioError> {
    let unauthenticated = || TwilioError::new(401, 20003, "Authenticate");
    let (user, password) = parse_login(authorization).ok_or_else(unauthenticated)?;
    let account = engine.account.sid;
    // The newer APIs have no account in the path.
    let mut parts = path
        .split('/')
        .skip_while(|part| *part != "Accounts")
        .skip(1);
    let account_in_path = parts.next().map(|name| name.trim_end_matches(".json"));
    let reads_account = account_in_path.is_some() && parts.next().is_none();
    if account_in_path.is_some_and(|sid| sid != account.as_str()) {
        return Err(unauthenticated());
    }
    let has_token = password == engine.account.token.expose();
    if user == account.as_str() && has_token {
        return Ok(());
    }
    match &engine.state().faults.api_key {
        // The emulator creates no API keys. Without one of `PUT faults`, a bot that is configured with a key must use the
        // auth token as the key's secret.
        None if user.starts_with("SK") && user.len() == 34 && has_token => Ok(()),
        // Only the auth token, or a main key, may read the account.
        Some(key) if key.sid == user && key.secret == password && !reads_account => {
            match key.missing_permission(method, path) {
                None => Ok(()),
                Some(permission) => {
                    let text = format!("Permission denied: the API key lacks {permission}");
                    Err(TwilioError::new(403, 70051, text))
                }
            }
        }
        _ => Err(unauthenticated()),
    }
}

/// Returns user and password of a Basic authorization.
fn parse_login(authorization: Option<&str>) -> Option<(String, String)> {
    let (scheme, login) = authorization?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let login = STANDARD.decode(login.trim()).ok()?;
    let login = String::from_utf8(login).ok()?;
    let (user, password) = login.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

pub(super) fn is_sid(text: &str, prefix: &str) -> bool {
    text.len() == 34
        && text.starts_with(prefix)
        && text[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}
