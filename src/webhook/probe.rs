//! A probe: whoever holds the token asks which process and which endpoint a public URL leads to. Nothing is kept or handled,
//! and no room is taken.

use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};

use super::Webhooks;
use super::answer;
use crate::probe::{ENDPOINT_HEADER, INSTANCE_HEADER, PARAMETER};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// The answer to a verified request that is a probe. It is no message and has no `MessageSid`, so it must be told from one
/// before it is read as one.
pub(super) fn answered(
    webhooks: &Webhooks,
    endpoint: Endpoint,
    form: &SignedForm,
    method: &Method,
) -> Option<Response> {
    let params = form.params();
    params.get(PARAMETER)?;
    // A message stays one whatever else it carries.
    if ["MessageSid", "SmsSid"]
        .iter()
        .any(|name| params.get(name).is_some())
    {
        return None;
    }
    let mut response = answer::respond(Ok((Document::empty(), Outcome::Probe)), method);
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static(INSTANCE_HEADER),
        webhooks.instance.header(),
    );
    headers.insert(
        HeaderName::from_static(ENDPOINT_HEADER),
        HeaderValue::from_static(endpoint.as_str()),
    );
    Some(response)
}
