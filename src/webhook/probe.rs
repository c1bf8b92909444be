//! Probes: signed requests that ask which process and which endpoint a public URL leads to.
//!
//! A probe is neither stored nor handled, and needs no permit.

use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};

use super::Webhooks;
use super::response as webhook_response;
use crate::probe::{ENDPOINT_HEADER, INSTANCE_HEADER, PARAMETER};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// Returns the response to a verified request, if it is a probe.
// Called before the request is parsed: a probe has no `MessageSid` and would be rejected as a malformed message.
// Without a permit, because nothing is handled.
pub(super) fn respond_to_probe(
    webhooks: &Webhooks,
    endpoint: Endpoint,
    form: &SignedForm,
    method: &Method,
) -> Option<Response> {
    let params = form.params();
    params.get(PARAMETER)?;
    // A request with a SID is a message, and no additional parameter may keep it from being accepted.
    if ["MessageSid", "SmsSid"]
        .iter()
        .any(|name| params.get(name).is_some())
    {
        return None;
    }
    let mut response = webhook_response::respond(Ok((Document::empty(), Outcome::Probe)), method);
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
