//! Responses of the REST API.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Error response in the format of Twilio's API.
#[derive(Debug)]
pub(super) struct TwilioError {
    status: u16,
    pub(super) code: u32,
    message: String,
}

impl TwilioError {
    pub(super) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// Creates a 400 error, for an invalid parameter.
    pub(super) fn bad_request(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(super) fn not_found(path: &str) -> Self {
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

pub(super) type RestResponse = Result<Response, TwilioError>;

fn json_body(value: &Value) -> impl IntoResponse + use<> {
    let json = HeaderValue::from_static("application/json;charset=utf-8");
    ([(CONTENT_TYPE, json)], value.to_string())
}

#[expect(clippy::unnecessary_wraps, reason = "every call ends with it")]
pub(super) fn ok(status: u16, value: &Value) -> RestResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok((status, json_body(value)).into_response())
}

#[expect(clippy::unnecessary_wraps, reason = "every call ends with one like it")]
pub(super) fn no_content() -> RestResponse {
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) fn not_allowed() -> TwilioError {
    TwilioError::new(405, 20004, "Method not allowed")
}

/// Returns the paging object of the v1 and v2 APIs, with everything on one page.
pub(super) fn paging_meta(key: &str, path: &str) -> Value {
    let url = format!("/{path}?PageSize=50&Page=0");
    json!({
        "page": 0, "page_size": 50, "first_page_url": url, "previous_page_url": null, "url": url,
        "next_page_url": null, "key": key,
    })
}
