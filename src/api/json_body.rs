//! [`JsonBody`]: the JSON object of a request.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::problem::ApiProblem;
use super::state::Api;
use crate::forward::replace_unpaired_surrogates;

/// Maximum size of a body in bytes: much more than a message with ten choices and all template variables needs.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The JSON object of a request, from which fields are taken. A field that is null is missing.
pub(super) struct JsonBody(Map<String, Value>);

impl JsonBody {
    /// Reads the body of a request. Fields other than `known` are ignored, and each is logged once.
    ///
    /// # Errors
    /// [`ApiProblem`] for another content type (415), a body that is too large (413), and invalid JSON (400).
    pub(super) async fn read(
        api: &Api,
        headers: &HeaderMap,
        body: Body,
        known: &[&str],
    ) -> Result<Self, ApiProblem> {
        if !is_json(headers) {
            return Err(ApiProblem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "the body is not declared as JSON",
                "send the header Content-Type: application/json",
            ));
        }
        let mut bytes = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(collected) => collected.to_bytes().to_vec(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(ApiProblem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!("the body is larger than {MAX_BODY_BYTES} bytes"),
                    "send media by URL, and one message per request",
                ));
            }
            Err(_) => {
                return Err(ApiProblem::bad_request(
                    "incomplete_body",
                    "the body ended early",
                    "send the request again",
                ));
            }
        };
        // As in the response of a forward service.
        replace_unpaired_surrogates(&mut bytes);
        // Only the position: the text of serde's error may quote the body.
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            ApiProblem::bad_request(
                "malformed_json",
                format!("the body is not JSON: the mistake is at line {line}, column {column}"),
                "send a JSON object in UTF-8",
            )
        })?;
        let Value::Object(fields) = json else {
            return Err(ApiProblem::bad_request(
                "malformed_json",
                "the body is JSON, but not an object",
                "send a JSON object",
            ));
        };
        let unknown = fields.keys().filter(|key| !known.contains(&key.as_str()));
        api.log_unknown_fields(unknown.cloned().collect());
        Ok(Self(fields))
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a text out.
    ///
    /// # Errors
    /// [`ApiProblem`] if the field is another kind of value.
    pub(super) fn take_text(&mut self, name: &'static str) -> Result<Option<String>, ApiProblem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid_field(name, "a text")),
        }
    }

    /// Takes a text of limited length out. A text of white space alone is missing.
    ///
    /// # Errors
    /// [`ApiProblem`] if the field is another kind of value, or longer than `max` characters.
    pub(super) fn take_note(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<Option<String>, ApiProblem> {
        let text = self.take_text(name)?.filter(|text| !text.trim().is_empty());
        match text {
            Some(text) if text.chars().count() > max => Err(invalid_field(
                name,
                &format!("a text of at most {max} characters"),
            )),
            text => Ok(text),
        }
    }
}

/// Creates the problem of a field with a value of another kind or form.
pub(super) fn invalid_field(name: &str, expected: &str) -> ApiProblem {
    ApiProblem::rejected(
        "invalid_field",
        format!("the field {name} is invalid"),
        format!("{name} is {expected}"),
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
