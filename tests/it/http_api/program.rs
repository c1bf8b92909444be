//! The API of the real program: a message with a 202 survives `kill -9`.

use rustix::process::Signal;
use serde_json::json;

use super::{ANA, SENDER};
use crate::support::{ACCOUNT, API_TOKEN, FakeTwilio, Server, TempStore, Webhook, wire};

fn post(server: &Server, key: &str, body: &str) -> Option<(u16, serde_json::Value)> {
    let body = json!({"to": ANA, "from": SENDER, "body": body}).to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {API_TOKEN}\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let response = wire::exchange(server.private, request.as_bytes())?;
    Some((response.status, serde_json::from_str(&response.body).ok()?))
}

#[test]
fn accepted_message_survives_kill_and_is_sent_once() {
    let twilio = FakeTwilio::start();
    // Nothing listens there, so the messages stay in the outbox.
    let store = TempStore::new();
    let env = [
        ("REPLYHOOK__ADMIN__TOKEN", API_TOKEN),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", "0"),
    ];
    let server = store.server_with(&env);
    server.send(&Webhook::message(1, "hi")).twiml();
    let mut ids = Vec::new();
    for number in 1..=5 {
        let (status, json) =
            post(&server, &format!("key-{number}"), &format!("text {number}")).unwrap();
        assert_eq!(status, 202, "{json}");
        ids.push(json["id"].clone());
    }
    server.signal(Signal::KILL);
    drop(server);
    let url = twilio.url();
    let reachable = [("REPLYHOOK__TWILIO__API_URL", url.as_str())];
    let server = store.server_with(&[&env[..], &reachable].concat());
    // Repeated after the crash, since the client did not know the outcome.
    for (number, id) in (1..=5).zip(&ids) {
        let (status, json) =
            post(&server, &format!("key-{number}"), &format!("text {number}")).unwrap();
        assert_eq!((status, &json["id"]), (202, id));
    }
    let phone = twilio.wait_for_phone(ANA, 5);
    let bodies: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["text 1", "text 2", "text 3", "text 4", "text 5"]);
    assert_eq!(twilio.posts().len(), 5);
}
