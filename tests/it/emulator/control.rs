//! The emulator's control interface: its output, its rejections, and its reset.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use replyhook::emulator::{AppInspector, EmulatorClientError};
use serde_json::{Value, json};

use super::{ANA, BEN, Bench, SMS, WHATSAPP};

// An invalid message, fault or clock request gets an explanation, calls no webhook and creates no conversation.
#[tokio::test]
async fn invalid_control_request_is_rejected_with_reason() {
    let bench = Bench::new().await;
    for (message, part) in [
        (json!({}), "from"),
        (json!({"from": "", "body": "x"}), "from: not an address"),
        (json!({"from": ANA, "to": SMS}), "different channels"),
        (json!({"from": ANA, "to": ANA}), "the same address"),
        (json!({"from": ANA, "bdoy": "x"}), "bdoy"),
        (json!({"from": ANA, "media": [{}]}), "url, path and data"),
        (json!({"from": ANA, "media": [{"data": "%%"}]}), "base64"),
        (
            json!({"from": ANA, "media": [{"path": "/nowhere/at/all"}]}),
            "cannot be read",
        ),
        (
            json!({"from": ANA, "media": [{"path": "/dev/zero"}]}),
            "not a file",
        ),
        (
            json!({"from": ANA, "body": "x".repeat(200_000)}),
            "bytes at most",
        ),
        (json!([ANA]), "a JSON object"),
        (
            json!({"from": "viber:1", "body": "x"}),
            "no sender on this channel",
        ),
    ] {
        let rejected = bench.remote.post(&["messages"], &message).await;
        let Err(EmulatorClientError::Rejected(reason)) = rejected else {
            panic!("{message}: {rejected:?}")
        };
        assert!(reason.contains(part), "{reason}");
    }
    for (faults, part) in [
        (json!({"duplicates": 1}), "duplicates"),
        (json!({"duplicate": 1000}), "at most"),
        (json!({"retry": "sometimes"}), "4xx, 5xx"),
        (json!({"rest_error": {"status": 200}}), "400 to 599"),
        (
            json!({"shared_key": {"id": "k", "secret": " "}}),
            "shared_key.secret: missing or empty",
        ),
        (
            json!({"shared_key": {"id": "k"}}),
            "shared_key.secret: missing or empty",
        ),
        (
            json!({"api_key": {"sid": "SK1", "secret": "x"}}),
            "SK and 32 hexadecimal digits",
        ),
        (
            json!({"api_key": {"sid": "SK00000000000000000000000000000001", "secret": ""}}),
            "missing or empty",
        ),
        (
            json!({"api_key": {"sid": "SK00000000000000000000000000000001", "secret": "x", "allow": ["messages/create"]}}),
            "is not a permission",
        ),
        (
            json!({"shared_key": {"id": "a b", "secret": "x"}}),
            "not the ID of a SharedKey",
        ),
        (
            json!({"shared_key": {"id": "k", "secret": "x", "algorithm": "HMAC_MD5"}}),
            "HMAC_SHA256",
        ),
    ] {
        let rejected = bench.remote.put(&["faults"], &faults).await;
        let Err(EmulatorClientError::Rejected(reason)) = rejected else {
            panic!("{faults}: {rejected:?}")
        };
        assert!(reason.contains(part), "{reason}");
    }
    for seconds in [
        json!({"advance_seconds": -1}),
        json!({"seconds": 1}),
        json!([]),
    ] {
        assert!(
            bench.remote.post(&["clock"], &seconds).await.is_err(),
            "{seconds}"
        );
    }
    assert_eq!(bench.server.requests().len(), 0);
    assert_eq!(
        bench.remote.get(&["conversations"]).await.unwrap(),
        json!([])
    );
}

// Reading a conversation marks its messages as read.
#[tokio::test]
async fn conversation_list_is_newest_first_with_unread_count() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>yes?</Message>");
    bench.says("one").await;
    bench
        .send_message(json!({"from": BEN, "to": SMS, "body": "two"}))
        .await;
    let all = bench.remote.get(&["conversations"]).await.unwrap();
    let users: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["user"].as_str().unwrap())
        .collect();
    assert_eq!(users, [BEN, ANA]);
    assert_eq!(
        (&all[0]["unread"], &all[0]["sender"]),
        (&json!(1), &json!(SMS))
    );
    let shown = bench.conversation(BEN).await;
    let messages: Vec<_> = shown
        .iter()
        .map(|m| {
            (
                m["direction"].as_str().unwrap(),
                m["body"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(messages, [("in", "two"), ("out", "yes?")]);
    let all = bench.remote.get(&["conversations"]).await.unwrap();
    assert_eq!(all[0]["unread"], 0);
    assert_eq!(
        bench.conversation("whatsapp:+19").await,
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn exchange_shows_full_request_and_response_without_secrets() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>hi</Message>");
    let answer = bench.says("look at me").await;
    let sid = answer["message_sid"].as_str().unwrap();
    let all = bench.remote.get(&["exchanges"]).await.unwrap();
    let call = all
        .as_array()
        .unwrap()
        .iter()
        .find(|call| call["kind"] == "webhook")
        .unwrap();
    assert_eq!(call["message_sid"], sid);
    assert_eq!(call["request"]["method"], "POST");
    assert!(
        call["request"]["body"]
            .as_str()
            .unwrap()
            .contains("Body=look+at+me")
    );
    assert_eq!(call["response"]["status"], 200);
    assert!(
        call["response"]["body"]
            .as_str()
            .unwrap()
            .contains("<Message>hi")
    );
    let signed = call["signed"]["string"].as_str().unwrap();
    assert!(
        signed.starts_with(&format!("{}/smsAccountSidAC", bench.server.url())),
        "{signed}"
    );
    let one = bench
        .remote
        .get(&["exchanges", call["id"].as_str().unwrap()])
        .await
        .unwrap();
    assert_eq!(&one, call);
    assert!(
        !all.to_string()
            .contains(bench.emulator.auth_token().expose())
    );
}

#[tokio::test]
async fn event_stream_reports_messages_exchanges_and_statuses() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>hi</Message>");
    let mut events = bench.remote.events().await.unwrap();
    bench.says("hello").await;
    let mut names = Vec::new();
    let limit = std::time::Duration::from_secs(30);
    while let Some(event) = tokio::time::timeout(limit, events.next())
        .await
        .expect("no event in time")
    {
        names.push(event.name.clone());
        if event.name == "status" && event.data["status"] == "read" {
            break;
        }
    }
    assert_eq!(names[..3], ["message", "exchange", "message"]);
    assert_eq!(names.iter().filter(|name| *name == "status").count(), 3);
}

#[tokio::test]
async fn conversation_exports_as_rust_test() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_twiml("/sms", "<Message>He said \"hi\"</Message>");
    bench.server.queue_twiml("/sms", "");
    bench
        .send_message(
            json!({"from": ANA, "to": WHATSAPP, "body": "line\none", "profile_name": "Ana"}),
        )
        .await;
    bench
        .send_message(
            json!({"from": ANA, "to": WHATSAPP, "button": {"text": "Yes", "payload": "y"}}),
        )
        .await;
    let test = bench
        .remote
        .text_of(&["conversations", ANA, "test"], &[])
        .await
        .unwrap();
    for line in [
        r#"let user = bot.user("whatsapp:+15550001111").named("Ana");"#,
        r#"user.says("line\none").await.assert_reply("He said \"hi\"");"#,
        r#"user.presses("Yes", "y").await.assert_replies(&[]);"#,
    ] {
        assert!(test.contains(line), "{line} is not in {test}");
    }
}

#[tokio::test]
async fn reset_clears_emulator_state() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "<Message>hi</Message>");
    bench.set_faults(json!({"duplicate": 1})).await;
    bench.says("hello").await;
    bench.remote.post(&["reset"], &json!({})).await.unwrap();
    for path in ["conversations", "exchanges", "debugger"] {
        assert_eq!(
            bench.remote.get(&[path]).await.unwrap(),
            json!([]),
            "{path}"
        );
    }
    let faults = bench.remote.get(&["faults"]).await.unwrap();
    assert_eq!(faults["duplicate"], 0);
    let unknown = bench.remote.get(&["exchanges", "ex1"]).await;
    assert!(matches!(unknown, Err(EmulatorClientError::Rejected(_))));
}

/// App whose store cannot be reset. It remembers the faults injected last.
#[derive(Default)]
struct AppWithBrokenStore {
    handler_ms: Mutex<u64>,
}

impl AppInspector for AppWithBrokenStore {
    fn deadline(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn debounce(&self) -> Duration {
        Duration::ZERO
    }

    fn store(&self) -> &'static str {
        "sqlite::memory:"
    }

    fn state(&self, _user: String, _sender: String) -> BoxFuture<'_, Value> {
        Box::pin(ready(json!({})))
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(ready(Err("disk full".to_owned())))
    }

    fn inject_faults(&self, handler_ms: u64, _handler_fails: bool) {
        *self.handler_ms.lock().unwrap() = handler_ms;
    }
}

// The emulator and the app agree on the faults that are active.
#[tokio::test]
async fn failed_reset_keeps_faults() {
    let bench = Bench::new().await;
    let app = Arc::new(AppWithBrokenStore::default());
    bench.emulator.attach(app.clone());
    bench.set_faults(json!({"handler_ms": 3000})).await;
    let failed = bench.remote.post(&["reset"], &json!({})).await;
    let Err(EmulatorClientError::Rejected(reason)) = failed else {
        panic!("{failed:?}")
    };
    assert!(reason.contains("disk full"), "{reason}");
    let faults = bench.remote.get(&["faults"]).await.unwrap();
    assert_eq!(faults["handler_ms"], 3000);
    assert_eq!(*app.handler_ms.lock().unwrap(), 3000);
}
