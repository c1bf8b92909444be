//! Messaging Services. Every well-formed SID exists; the list has those whose settings were changed.
//!
//! Source: `/v1/Services` of the messaging API.

use http::Method;
use serde_json::{Value, json};

use super::call::ApiCall;
use super::response::{RestResponse, not_allowed, ok, paging_meta};
use crate::engine::Engine;

/// Parameters that can be set, and the names of their fields in the resource.
const SETTINGS: [(&str, &str); 6] = [
    ("InboundRequestUrl", "inbound_request_url"),
    ("InboundMethod", "inbound_method"),
    ("FallbackUrl", "fallback_url"),
    ("FallbackMethod", "fallback_method"),
    ("StatusCallback", "status_callback"),
    ("UseInboundWebhookOnNumber", "use_inbound_webhook_on_number"),
];

/// Handles `/v1/Services`.
pub(super) fn list(engine: &Engine, call: &ApiCall) -> RestResponse {
    if call.method != Method::GET {
        return Err(not_allowed());
    }
    let sids: Vec<_> = engine.state().service_settings.keys().cloned().collect();
    let services: Vec<_> = sids.iter().map(|sid| service_json(engine, sid)).collect();
    ok(
        200,
        &json!({"services": services, "meta": paging_meta("services", &call.path)}),
    )
}

/// Handles `/v1/Services/{sid}`.
pub(super) fn item(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    match call.method {
        Method::GET => {}
        Method::POST => {
            let mut state = engine.state();
            let settings = state.service_settings.entry(sid.to_owned()).or_default();
            for (name, field) in SETTINGS {
                let Some(value) = call.form.get(name) else {
                    continue;
                };
                let value = match value {
                    "" => Value::Null,
                    "true" | "false" if name == "UseInboundWebhookOnNumber" => {
                        (value == "true").into()
                    }
                    text => text.into(),
                };
                settings.insert(field.to_owned(), value);
            }
        }
        _ => return Err(not_allowed()),
    }
    ok(200, &service_json(engine, sid))
}

fn service_json(engine: &Engine, sid: &str) -> Value {
    let mut resource = json!({
        "sid": sid,
        "account_sid": engine.account.sid.as_str(),
        "friendly_name": "A service of the emulator",
        "inbound_request_url": null,
        "inbound_method": "POST",
        "fallback_url": null,
        "fallback_method": "POST",
        "status_callback": null,
        "use_inbound_webhook_on_number": true,
        "url": format!("https://messaging.twilio.com/v1/Services/{sid}"),
    });
    if let Some(settings) = engine.state().service_settings.get(sid) {
        for (name, value) in settings {
            resource[name] = value.clone();
        }
    }
    resource
}
