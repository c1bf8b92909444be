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
    if is_authorized(engine, authorization, path) {
        Ok(call)
    } else {
        Err(TwilioError::new(401, 20003, "Authenticate"))
    }
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

pub(super) fn is_sid(text: &str, prefix: &str) -> bool {
    text.len() == 34
        && text.starts_with(prefix)
        && text[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}
