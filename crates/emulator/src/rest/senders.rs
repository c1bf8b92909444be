//! Webhook settings of phone numbers and WhatsApp senders. They are stored and returned, but the emulator always calls
//! the URLs in its [`EmulatorOptions`](crate::EmulatorOptions).
//!
//! Source: `IncomingPhoneNumbers` of the 2010-04-01 API, and `/v2/Channels/Senders`.

use http::Method;
use serde_json::{Value, json};

use super::call::ApiCall;
use super::response::{RestResponse, TwilioError, not_allowed, ok, paging_meta};
use crate::account::SENDERS;
use crate::engine::Engine;

/// Parameters that can be set, and the names of their fields in the resource.
const NUMBER_SETTINGS: [(&str, &str); 5] = [
    ("SmsUrl", "sms_url"),
    ("SmsMethod", "sms_method"),
    ("SmsFallbackUrl", "sms_fallback_url"),
    ("SmsFallbackMethod", "sms_fallback_method"),
    ("StatusCallback", "status_callback"),
];

/// Handles `IncomingPhoneNumbers.json`.
pub(super) fn list_numbers(engine: &Engine, call: &ApiCall) -> RestResponse {
    let wanted = call.query.get("PhoneNumber");
    let found: Vec<Value> = phone_numbers(engine)
        .iter()
        .filter(|number| wanted.is_none_or(|wanted| wanted == number.as_str()))
        .map(|number| number_json(engine, number))
        .collect();
    let uri = format!("/{}?PageSize=50&Page=0", call.path);
    ok(
        200,
        &json!({
            "end": found.len().saturating_sub(1), "first_page_uri": uri, "incoming_phone_numbers": found,
            "next_page_uri": null, "page": 0, "page_size": 50, "previous_page_uri": null, "start": 0, "uri": uri,
        }),
    )
}

/// Handles `IncomingPhoneNumbers/{sid}.json`.
pub(super) fn number_item(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    let numbers = phone_numbers(engine);
    let number = numbers.iter().find(|number| sid_for("PN", number) == sid);
    let number = number.ok_or_else(|| TwilioError::not_found(&call.path))?;
    match call.method {
        Method::GET => {}
        Method::POST => {
            let mut state = engine.state();
            let settings = state.number_settings.entry(number.clone()).or_default();
            for (name, field) in NUMBER_SETTINGS {
                if let Some(value) = call.form.get(name) {
                    settings.insert(field.to_owned(), value.to_owned());
                }
            }
        }
        _ => return Err(not_allowed()),
    }
    ok(200, &number_json(engine, number))
}

fn number_json(engine: &Engine, number: &str) -> Value {
    let account = engine.account.sid;
    let sid = sid_for("PN", number);
    let mut resource = json!({
        "sid": sid,
        "account_sid": account.as_str(),
        "address_requirements": "none",
        "address_sid": null,
        "api_version": "2010-04-01",
        "beta": false,
        "bundle_sid": null,
        "emergency_address_sid": null,
        "emergency_address_status": "unregistered",
        "emergency_status": "Inactive",
        "friendly_name": number,
        "identity_sid": null,
        "origin": "twilio",
        "phone_number": number,
        "sms_url": engine.options.webhook,
        "sms_method": "POST",
        "sms_fallback_url": engine.options.fallback.clone().unwrap_or_default(),
        "sms_fallback_method": "POST",
        "sms_application_sid": "",
        "status_callback": engine.options.status_callback.clone().unwrap_or_default(),
        "status_callback_method": "POST",
        "status": "in-use",
        "trunk_sid": null,
        "type": "local",
        "voice_application_sid": "",
        "voice_caller_id_lookup": false,
        "voice_fallback_method": "POST",
        "voice_fallback_url": "",
        "voice_method": "POST",
        "voice_receive_mode": "voice",
        "voice_url": "",
        "capabilities": {"voice": false, "sms": true, "mms": true, "fax": false},
        "date_created": null,
        "date_updated": null,
        "uri": format!("/2010-04-01/Accounts/{account}/IncomingPhoneNumbers/{sid}.json"),
    });
    // Settings from the API replace the emulator's own URLs above.
    if let Some(settings) = engine.state().number_settings.get(number) {
        for (name, value) in settings {
            resource[name] = value.as_str().into();
        }
    }
    resource
}

/// Handles `/v2/Channels/Senders`.
pub(super) fn list(engine: &Engine, call: &ApiCall) -> RestResponse {
    if call.method != Method::GET {
        return Err(not_allowed());
    }
    let wanted = call.query.get("Channel");
    let found: Vec<Value> = engine
        .senders()
        .iter()
        .filter(|sender| {
            sender
                .split_once(':')
                .is_some_and(|(channel, _)| wanted.is_none_or(|wanted| wanted == channel))
        })
        .map(|sender| sender_json(engine, sender))
        .collect();
    ok(
        200,
        &json!({"senders": found, "meta": paging_meta("senders", &call.path)}),
    )
}

/// Handles `/v2/Channels/Senders/{sid}`.
pub(super) fn item(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    let senders = engine.senders();
    let sender = senders
        .iter()
        .find(|sender| sender.contains(':') && sid_for("XE", sender) == sid);
    let sender = sender.ok_or_else(|| TwilioError::not_found(&call.path))?;
    match call.method {
        Method::GET => ok(200, &sender_json(engine, sender)),
        Method::POST => {
            let webhook = call.json.as_ref().map(|json| json["webhook"].clone());
            if let Some(webhook) = webhook.filter(Value::is_object) {
                engine
                    .state()
                    .sender_settings
                    .insert(sender.clone(), webhook);
            }
            // 202 Accepted, as at Twilio.
            ok(202, &sender_json(engine, sender))
        }
        _ => Err(not_allowed()),
    }
}

fn sender_json(engine: &Engine, sender: &str) -> Value {
    let sid = sid_for("XE", sender);
    let mut webhook = json!({
        "callback_url": engine.options.webhook,
        "callback_method": "POST",
        "fallback_url": engine.options.fallback,
        "fallback_method": "POST",
        "status_callback_url": engine.options.status_callback,
        "status_callback_method": "POST",
    });
    if let Some(settings) = engine.state().sender_settings.get(sender) {
        for (name, value) in settings.as_object().into_iter().flatten() {
            webhook[name] = value.clone();
        }
    }
    json!({
        "sid": sid,
        "sender_id": sender,
        "status": "ONLINE",
        "configuration": {},
        "webhook": webhook,
        "profile": {"name": "replyhook emulator"},
        "properties": {},
        "offline_reasons": null,
        "compliance": null,
        "friendly_name": null,
        "display_name_status": null,
        "pending_display_name": null,
        "pending_display_name_status": null,
        "pending_display_name_status_date": null,
        "url": format!("https://messaging.twilio.com/v2/Channels/Senders/{sid}"),
    })
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
    // Default senders have the numbers from 1; others a hash, since they come and go.
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
