//! `Content` resource: templates and their approval. Every well-formed `HX…` exists and is approved. Templates created
//! via this API are rendered with their own text.
//!
//! Source: twilio.com/docs/content/content-api-resources.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::call::{ApiCall, is_sid};
use super::response::{RestResponse, TwilioError, no_content, not_allowed, ok, paging_meta};
use crate::account::random_sid;
use crate::engine::Engine;
use crate::record::QuickReply;

/// Handles `Content` and `ContentAndApprovals`.
pub(super) fn collection(engine: &Engine, call: &ApiCall) -> RestResponse {
    match call.method {
        Method::GET => {
            let with_approvals = call.path.ends_with("ContentAndApprovals");
            let state = engine.state();
            let contents: Vec<Value> = state
                .templates
                .iter()
                .map(|template| {
                    let (mut resource, approval) = split_approval(template.clone());
                    if with_approvals && let Some(fields) = resource.as_object_mut() {
                        fields.remove("links");
                        fields.remove("url");
                        fields.insert("approval_requests".to_owned(), approval);
                    }
                    resource
                })
                .collect();
            ok(
                200,
                &json!({"contents": contents, "meta": paging_meta("contents", &call.path)}),
            )
        }
        Method::POST => create(engine, call),
        _ => Err(not_allowed()),
    }
}

fn create(engine: &Engine, call: &ApiCall) -> RestResponse {
    let json = call.json.as_ref();
    let json =
        json.ok_or_else(|| TwilioError::bad_request(20001, "The request body is not JSON"))?;
    let types = json["types"].as_object();
    if types.is_none_or(serde_json::Map::is_empty) {
        return Err(TwilioError::bad_request(
            20001,
            "types: at least one is required",
        ));
    }
    let language = json["language"].as_str();
    let language =
        language.ok_or_else(|| TwilioError::bad_request(20001, "language is required"))?;
    let template = random_sid("HX");
    let now = engine.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let url = format!("https://content.twilio.com/v1/Content/{template}");
    let name = json["friendly_name"].as_str();
    let template_json = json!({
        "sid": template,
        "account_sid": engine.account.sid.as_str(),
        "friendly_name": name,
        "language": language,
        "variables": json.get("variables").cloned().unwrap_or_else(|| json!({})),
        "types": json["types"],
        "date_created": now,
        "date_updated": now,
        "url": url,
        "links": {
            "approval_create": format!("{url}/ApprovalRequests/whatsapp"),
            "approval_fetch": format!("{url}/ApprovalRequests"),
        },
        // Approved immediately: the emulator does not simulate WhatsApp's review.
        "approval": approval_json(name.unwrap_or_default(), "UTILITY"),
    });
    engine.state().templates.push(template_json.clone());
    let (resource, _) = split_approval(template_json);
    ok(201, &resource)
}

/// Splits a stored template into the Content resource and the approval, which is not a field of Twilio's resource.
fn split_approval(mut template: Value) -> (Value, Value) {
    let fields = template.as_object_mut();
    let approval = fields.and_then(|fields| fields.remove("approval"));
    (template, approval.unwrap_or_default())
}

fn approval_json(name: &str, category: &str) -> Value {
    json!({
        "type": "whatsapp", "name": name, "category": category, "content_type": "twilio/text",
        "status": "approved", "rejection_reason": "", "allow_category_change": true,
    })
}

/// Handles `Content/{sid}`.
pub(super) fn item(engine: &Engine, call: &ApiCall, template: &str) -> RestResponse {
    let not_found = || TwilioError::not_found(&call.path);
    match call.method {
        Method::GET => {
            let found = find_template(engine, template).ok_or_else(not_found)?;
            let (resource, _) = split_approval(found);
            ok(200, &resource)
        }
        Method::DELETE => {
            let mut state = engine.state();
            let before = state.templates.len();
            state.templates.retain(|stored| stored["sid"] != template);
            if state.templates.len() == before {
                return Err(not_found());
            }
            no_content()
        }
        _ => Err(not_allowed()),
    }
}

/// Handles `Content/{sid}/ApprovalRequests`: fetch and create.
pub(super) fn approval(engine: &Engine, call: &ApiCall, template: &str) -> RestResponse {
    let not_found = || TwilioError::not_found(&call.path);
    let url = format!("https://content.twilio.com/v1/Content/{template}/ApprovalRequests");
    match call.method {
        Method::GET => {
            let found = find_template(engine, template).ok_or_else(not_found)?;
            ok(
                200,
                &json!({
                    "sid": template, "account_sid": engine.account.sid.as_str(),
                    "whatsapp": found["approval"], "url": url,
                }),
            )
        }
        Method::POST => {
            let json = call.json.as_ref();
            let text = |name: &str| json.and_then(|json| json[name].as_str()).map(str::to_owned);
            let (Some(name), Some(category)) = (text("name"), text("category")) else {
                return Err(TwilioError::bad_request(
                    20001,
                    "name and category are required",
                ));
            };
            let mut state = engine.state();
            let found = state
                .templates
                .iter_mut()
                .find(|stored| stored["sid"] == template);
            let found = found.ok_or_else(not_found)?;
            found["approval"] = approval_json(&name, &category);
            ok(201, &found["approval"].clone())
        }
        _ => Err(not_allowed()),
    }
}

/// Returns a created template, or an empty one for any other well-formed SID.
fn find_template(engine: &Engine, template: &str) -> Option<Value> {
    let state = engine.state();
    let stored = state
        .templates
        .iter()
        .find(|stored| stored["sid"] == template);
    if let Some(stored) = stored {
        return Some(stored.clone());
    }
    is_sid(template, "HX").then(|| {
        let url = format!("https://content.twilio.com/v1/Content/{template}");
        json!({
            "sid": template,
            "account_sid": engine.account.sid.as_str(),
            "friendly_name": "a template of the emulator",
            "language": "en",
            "variables": {},
            "types": {"twilio/text": {"body": ""}},
            "date_created": null,
            "date_updated": null,
            "url": url,
            "links": {
                "approval_create": format!("{url}/ApprovalRequests/whatsapp"),
                "approval_fetch": format!("{url}/ApprovalRequests"),
            },
            "approval": approval_json("a template of the emulator", "UTILITY"),
        })
    })
}

/// Renders a template with variables. Returns its text and buttons.
pub(super) fn render(
    engine: &Engine,
    template: &str,
    variables: Option<&str>,
) -> Result<(String, Vec<QuickReply>), TwilioError> {
    let invalid = || TwilioError::bad_request(21656, "The ContentVariables Parameter is invalid.");
    let values: BTreeMap<String, String> = match variables {
        Some(text) => serde_json::from_str(text).map_err(|_| invalid())?,
        None => BTreeMap::new(),
    };
    let found = find_template(engine, template);
    let found =
        found.ok_or_else(|| TwilioError::bad_request(21655, "The ContentSid is Invalid"))?;
    let types = found["types"].as_object().cloned().unwrap_or_default();
    let body = types.values().find_map(|kind| kind["body"].as_str());
    let body = body.unwrap_or_default();
    // A template that was not created here has no text. Show its SID and variables instead.
    if body.is_empty() {
        let pairs: Vec<_> = values
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        return Ok((
            format!("[template {template}] {}", pairs.join(", "))
                .trim_end()
                .to_owned(),
            Vec::new(),
        ));
    }
    let defaults = found["variables"].as_object().cloned().unwrap_or_default();
    let value = |name: &str| {
        let default = defaults.get(name).and_then(Value::as_str);
        values.get(name).map(String::as_str).or(default)
    };
    let text = fill_placeholders(body, value);
    let actions = types.values().find_map(|kind| kind["actions"].as_array());
    let button = |action: &Value| {
        let text = action["title"].as_str()?;
        let payload = action["id"].as_str().unwrap_or(text);
        Some(QuickReply {
            text: text.to_owned(),
            payload: payload.to_owned(),
        })
    };
    let buttons = actions.map(|actions| actions.iter().filter_map(button).collect());
    Ok((text, buttons.unwrap_or_default()))
}

/// Replaces each `{{name}}` that has a value.
fn fill_placeholders<'a>(text: &'a str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut filled = String::with_capacity(text.len());
    // One pass over the template: a placeholder inside a value is not replaced.
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let found = after.split_once("}}");
        let found = found.and_then(|(name, rest)| Some((value(name.trim())?, rest)));
        if let Some((value, after)) = found {
            filled.push_str(value);
            rest = after;
        } else {
            // Unknown or unclosed: keep it as text.
            filled.push_str("{{");
            rest = after;
        }
    }
    filled + rest
}
