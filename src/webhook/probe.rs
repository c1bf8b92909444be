//! Probes: signed requests that ask which process and which endpoint a public URL leads to.
//!
//! A probe is neither stored nor handled, and needs no permit.

use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};

use super::response as webhook_response;
use super::webhooks::Webhooks;
use crate::form::FormParams;
use crate::probe::{ENDPOINT_HEADER, INSTANCE_HEADER, PARAMETER};
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// Returns true if a verified request is a probe.
pub(super) fn is_probe(params: &FormParams) -> bool {
    // A request with a SID is a message, and no additional parameter may keep it from being accepted.
    params.get(PARAMETER).is_some()
        && ["MessageSid", "SmsSid"]
            .iter()
            .all(|name| params.get(name).is_none())
}

/// Responds to a probe.
pub(super) fn respond(webhooks: &Webhooks, endpoint: Endpoint, method: &Method) -> Response {
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
    response
}
