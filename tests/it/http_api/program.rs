//! The API of the real program: a message with a 202 survives `kill -9`.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{ANA, SENDER};
use crate::support::{
    ACCOUNT, API_TOKEN, Description, FakeTwilio, Server, TempStore, Wait, Webhook, wire,
};

fn call(server: &Server, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {API_TOKEN}\r\n{key}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let response = wire::exchange(server.private, request.as_bytes()).unwrap();
    let (status, text) = (response.status, &response.body);
    Description::current().check(method, path, None, status, text);
    (status, serde_json::from_str(text).unwrap())
}

/// Posts a message. The third is a question with a file, so it has two parts.
fn post(server: &Server, number: usize) -> Value {
    let mut message = json!({"to": ANA, "from": SENDER, "body": format!("text {number}")});
    if number == 3 {
        message["choices"] = json!(["Today", "Another day"]);
        message["media"] = json!(["https://h/menu.pdf"]);
    }
    let key = format!("Idempotency-Key: key-{number}\r\n");
    let (status, json) = call(server, "POST", "/v1/messages", &key, &message.to_string());
    assert_eq!(status, 202, "{json}");
    json["id"].clone()
}

/// Waits until a message is sent or held, and returns which.
fn wait_for_end(server: &Server, id: &Value) -> String {
    let wait = Wait::until(format!("message {id} is sent or held"));
    loop {
        let (_, json) = call(server, "GET", &format!("/v1/messages/{id}"), "", "");
        let state = json["state"].as_str().unwrap().to_owned();
        if ["sent", "held"].contains(&state.as_str()) {
            return state;
        }
        wait.check_found(&state);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

// A kill during a call leaves its result unknown. Twilio's list does not have the message then, so it is held for the
// operator instead of being sent twice. A conversation has one call at a time, so this is one message at most.
#[test]
fn accepted_message_survives_kill_and_is_sent_once() {
    let twilio = FakeTwilio::start();
    // Nothing listens at the API's URL, so the messages stay in the outbox.
    let store = TempStore::new();
    let env = [
        ("REPLYHOOK__ADMIN__TOKEN", API_TOKEN),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", "0"),
        ("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9"),
    ];
    let server = store.server_with(&env);
    server.send(&Webhook::message(1, "hi")).twiml();
    let ids: Vec<_> = (1..=5).map(|number| post(&server, number)).collect();
    server.signal(Signal::KILL);
    drop(server);
    let url = twilio.url();
    let reachable = [
        ("REPLYHOOK__TWILIO__API_URL", url.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", url.as_str()),
    ];
    let server = store.server_with(&[&env[..], &reachable].concat());
    // Repeated after the crash, since the client did not know the outcome.
    for (number, id) in (1..=5).zip(&ids) {
        assert_eq!(post(&server, number), *id);
    }
    let states: Vec<_> = ids.iter().map(|id| wait_for_end(&server, id)).collect();
    let sent: Vec<_> = (1..=5)
        .zip(&states)
        .filter(|(_, state)| *state == "sent")
        .map(|(number, _)| format!("text {number}"))
        .collect();
    let phone = twilio.phone(ANA);
    let texts: Vec<_> = phone
        .iter()
        // Without the lines of a question that is sent as a text.
        .filter_map(|message| message.body.lines().next())
        .filter(|line| line.starts_with("text"))
        .collect();
    assert_eq!(texts, sent, "{states:?}");
    // Six calls, or five if one part is held.
    let calls = twilio.posts().len();
    assert_eq!(calls, phone.len());
    assert!(calls == 6 || calls == 5, "{calls}: {states:?}");
    assert!(sent.len() >= 4, "{states:?}");
}
