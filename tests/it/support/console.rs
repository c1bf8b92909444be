//! Fake of Twilio's REST API for configuration: an account, its numbers, WhatsApp senders and Messaging Services.

use std::sync::{Arc, Mutex};

use base64::Engine;
use jiff::{SignedDuration, Zoned};
use replyhook::{Clock, SystemClock};
use serde_json::{Value, json};

use super::http::{Listener, RawRequest, http_response};
use super::{ACCOUNT, TOKEN};

pub struct Console {
    listener: Listener,
    state: Arc<Mutex<ConsoleState>>,
}

/// Configuration that the REST API returns, and its changes.
pub struct ConsoleState {
    /// Accepted password, with any user.
    pub password: String,
    /// Primary auth token of the account.
    pub auth_token: String,
    pub status: String,
    pub numbers: Vec<Value>,
    pub senders: Vec<Value>,
    pub services: Vec<Value>,
    /// True if the credentials may not read the services.
    pub hides_services: bool,
    /// SIDs of senders that cannot be changed.
    pub unchangeable: Vec<&'static str>,
    /// Changes in order: SID of the sender, and its webhooks.
    pub changes: Vec<(String, Value)>,
    /// Seconds by which Twilio's clock is ahead.
    pub seconds_ahead: i64,
}

impl Console {
    /// Starts one without numbers and senders.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(ConsoleState {
            password: TOKEN.to_owned(),
            auth_token: TOKEN.to_owned(),
            status: "active".to_owned(),
            numbers: Vec::new(),
            senders: Vec::new(),
            services: Vec::new(),
            hides_services: false,
            unchangeable: Vec::new(),
            changes: Vec::new(),
            seconds_ahead: 0,
        }));
        let shared = state.clone();
        let listener = Listener::start(None, move |request| {
            respond(&mut shared.lock().unwrap(), &request)
        });
        Self { listener, state }
    }

    /// Starts one with a sender that has these webhooks: primary, fallback, status.
    pub fn with_sender(webhooks: [&str; 3]) -> Self {
        let console = Self::start();
        console.change(|state| {
            state.senders = vec![sender(webhooks)];
        });
        console
    }

    pub fn change(&self, change: impl FnOnce(&mut ConsoleState)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Webhooks of the sender at an index.
    pub fn webhooks(&self, index: usize) -> Value {
        self.state.lock().unwrap().senders[index]["webhook"].clone()
    }

    /// Changes so far.
    pub fn changes(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().changes.clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address)
    }
}

/// Sender with these webhooks: primary, fallback, status.
pub fn sender([primary, fallback, status]: [&str; 3]) -> Value {
    json!({
        "sid": "XE00000000000000000000000000000001",
        "status": "ONLINE",
        "sender_id": "whatsapp:+15550002222",
        "webhook": {
            "callback_url": primary, "callback_method": "POST",
            "fallback_url": fallback, "fallback_method": "POST",
            "status_callback_url": status, "status_callback_method": "POST",
        },
        "url": "https://messaging.twilio.com/v2/Channels/Senders/XE00000000000000000000000000000001",
    })
}

/// Phone number with these webhooks.
pub fn number(primary: &str, fallback: &str) -> Value {
    json!({
        "sid": "PN00000000000000000000000000000001",
        "phone_number": "+15550003344",
        "sms_url": primary, "sms_method": "POST",
        "sms_fallback_url": fallback, "sms_fallback_method": "POST",
        "status_callback": "", "sms_application_sid": "",
    })
}

fn respond(state: &mut ConsoleState, request: &RawRequest) -> Vec<u8> {
    let ahead = SignedDuration::from_secs(state.seconds_ahead);
    let now: Zoned = (SystemClock.now() + ahead).to_zoned(jiff::tz::TimeZone::UTC);
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let json_response = |status, body: &Value| {
        let headers = [
            ("Date", date.as_str()),
            ("Content-Type", "application/json"),
        ];
        http_response(status, &headers, &body.to_string())
    };
    if login_password(request).as_ref() != Some(&state.password) {
        return json_response(
            401,
            &json!({"code": 20003, "message": "Authenticate", "status": 401}),
        );
    }
    let account = format!("/2010-04-01/Accounts/{ACCOUNT}");
    let path = request.target.split('?').next().unwrap();
    let below = path.strip_prefix(&account);
    let (number, last) = page(request);
    match (path, below) {
        (_, Some(".json")) => json_response(
            200,
            &json!({"sid": ACCOUNT, "status": state.status, "auth_token": state.auth_token}),
        ),
        (_, Some("/IncomingPhoneNumbers.json")) => {
            // One number per page, so that a client must read all pages.
            let next = format!("{path}?PageSize=1&Page={}", number + 1);
            let next = (number + 1 < state.numbers.len()).then_some(next);
            let page: Vec<_> = state.numbers.iter().skip(number).take(1).collect();
            json_response(
                200,
                &json!({"incoming_phone_numbers": page, "next_page_uri": next}),
            )
        }
        (_, Some(below)) if below.starts_with("/IncomingPhoneNumbers/PN") => {
            let sid = below.rsplit('/').next().unwrap().trim_end_matches(".json");
            let (status, body) =
                get_or_change_by_form(&mut state.numbers, &mut state.changes, request, sid);
            json_response(status, &body)
        }
        ("/v1/Services", _) if state.hides_services => json_response(
            403,
            &json!({"code": 70051, "message": "Authorization Failed", "status": 403}),
        ),
        ("/v1/Services", _) => {
            let host = request.header("host").unwrap();
            let next = format!("http://{host}{path}?Page={}", number + 1);
            let next = (number + 1 < state.services.len()).then_some(next);
            let page: Vec<_> = state.services.iter().skip(number).take(1).collect();
            json_response(
                200,
                &json!({"services": page, "meta": {"key": "services", "next_page_url": next}}),
            )
        }
        _ if path.starts_with("/v1/Services/") => {
            let sid = path.rsplit('/').next().unwrap();
            let (status, body) =
                get_or_change_by_form(&mut state.services, &mut state.changes, request, sid);
            json_response(status, &body)
        }
        (_, Some("/Messages.json")) => {
            json_response(200, &json!({"messages": [], "next_page_uri": null}))
        }
        ("/v2/Channels/Senders", _) => {
            assert!(last.contains("Channel=whatsapp"), "{last}");
            let host = request.header("host").unwrap();
            let next = format!("http://{host}{path}?Channel=whatsapp&Page={}", number + 1);
            let next = (number + 1 < state.senders.len()).then_some(next);
            let page: Vec<_> = state.senders.iter().skip(number).take(1).collect();
            json_response(
                200,
                &json!({"senders": page, "meta": {"key": "senders", "next_page_url": next}}),
            )
        }
        _ if path.starts_with("/v2/Channels/Senders/") => {
            let (status, body) = get_or_change_sender(state, request, path);
            json_response(status, &body)
        }
        _ => json_response(
            404,
            &json!({"code": 20404, "message": "not found", "status": 404}),
        ),
    }
}

/// Returns a sender, or sets its webhooks. An empty URL removes a webhook.
fn get_or_change_sender(
    state: &mut ConsoleState,
    request: &RawRequest,
    path: &str,
) -> (u16, Value) {
    let sid = path.rsplit('/').next().unwrap();
    let mut senders = state.senders.iter_mut();
    let Some(sender) = senders.find(|sender| sender["sid"] == sid) else {
        let body = json!({"code": 20404, "message": "not found", "status": 404});
        return (404, body);
    };
    if request.method == "GET" {
        return (200, sender.clone());
    }
    assert_eq!(request.header("content-type"), Some("application/json"));
    let mut body: Value = serde_json::from_slice(&request.body).unwrap();
    let webhook = body["webhook"].take();
    state.changes.push((sid.to_owned(), webhook.clone()));
    if state.unchangeable.contains(&sid) {
        let body = json!({"code": 63100, "message": "invalid", "status": 400});
        return (400, body);
    }
    for (name, value) in webhook.as_object().unwrap() {
        let value = if value == "" {
            Value::Null
        } else {
            value.clone()
        };
        sender["webhook"][name] = value;
    }
    (202, sender.clone())
}

/// Returns a number or service, or sets its properties as Twilio names them in forms.
fn get_or_change_by_form(
    resources: &mut [Value],
    changes: &mut Vec<(String, Value)>,
    request: &RawRequest,
    sid: &str,
) -> (u16, Value) {
    let Some(resource) = resources.iter_mut().find(|resource| resource["sid"] == sid) else {
        let body = json!({"code": 20404, "message": "not found", "status": 404});
        return (404, body);
    };
    if request.method == "GET" {
        return (200, resource.clone());
    }
    let form = replyhook::FormParams::parse(&request.body, 100).unwrap();
    let mut change = json!({});
    for (name, value) in form.iter() {
        let mut field = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !field.is_empty() {
                field.push('_');
            }
            field.push(letter.to_ascii_lowercase());
        }
        let value = match value {
            "true" | "false" => json!(value == "true"),
            text => json!(text),
        };
        change[&field] = value.clone();
        resource[&field] = value;
    }
    changes.push((sid.to_owned(), change));
    (200, resource.clone())
}

/// Messaging Service with this webhook.
pub fn service(webhook: &str, uses_number_webhooks: bool) -> Value {
    json!({
        "sid": "MG00000000000000000000000000000001",
        "friendly_name": "Shop",
        "inbound_request_url": webhook, "inbound_method": "POST",
        "fallback_url": null, "fallback_method": "POST",
        "status_callback": null,
        "use_inbound_webhook_on_number": uses_number_webhooks,
    })
}

/// Returns the number of the requested page, and the whole query.
fn page(request: &RawRequest) -> (usize, &str) {
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    let page = query.split('&').find_map(|pair| pair.strip_prefix("Page="));
    (page.map_or(0, |page| page.parse().unwrap()), query)
}

fn login_password(request: &RawRequest) -> Option<String> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    let login = String::from_utf8(decoded).ok()?;
    Some(login.split_once(':')?.1.to_owned())
}
