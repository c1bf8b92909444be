//! Twilio's error codes for the responses of webhooks and status callbacks.

use replyhook::emulator::SimulatedMessage;
use serde_json::json;

use super::{ANA, BEN, Bench, SMS, WHATSAPP, attempts, bodies};

// Twilio's tutorials print both; it warns and goes on.
#[tokio::test]
async fn text_next_to_media_and_response_attribute_only_warn() {
    let bench = Bench::new().await;
    bench
        .server
        .queue_response("/cat.png", 200, "image/png", "\u{1}");
    let body = "<Response lang=\"en\"><Message>Look:\n<Media>/cat.png</Media></Message></Response>";
    bench.server.queue_response("/sms", 200, "text/xml", body);
    let answer = bench.says("hi").await;
    assert_eq!(bodies(&answer), ["Look:"]);
    let media = answer["messages"][0]["media"].as_array().unwrap();
    assert_eq!(media[0]["content_type"], "image/png");
    assert_eq!(bench.debugger_codes().await, [12200, 12200]);
    let entries = bench.remote.get(&["debugger"]).await.unwrap();
    assert_eq!(entries[0]["level"], "warning");
}

#[tokio::test]
async fn unusable_cookie_of_webhook_response_is_11206() {
    for cookie in ["=value", "a=b\tc"] {
        let bench = Bench::new().await;
        let headers = vec![
            ("content-type", "text/xml".to_owned()),
            ("set-cookie", cookie.to_owned()),
        ];
        let body = b"<Response/>".to_vec();
        bench.server.script("/sms", (200, headers, body));
        bench.server.queue_twiml("/fallback", "");
        let failed = ("sms".to_owned(), Some(200), Some(11206));
        assert_eq!(attempts(&bench.says("hi").await)[0], failed, "{cookie:?}");
    }
}

#[tokio::test]
async fn failed_status_callback_has_code_of_webhooks() {
    for (status, code) in [(404, 11217), (429, 11217), (503, 11217), (308, 11216)] {
        let bench = Bench::with("", |options| {
            let origin = options.webhook.trim_end_matches("/sms").to_owned();
            options.status_callback = Some(format!("{origin}/status"));
        })
        .await;
        bench
            .server
            .queue_response("/status", status, "text/plain", "no");
        bench.server.queue_twiml("/sms", "<Message>hi</Message>");
        bench
            .send_message(json!({"from": BEN, "to": SMS, "body": "hi"}))
            .await;
        bench
            .wait_for_message(BEN, |message| message["status"] == "delivered")
            .await;
        let codes = bench.debugger_codes().await;
        assert!(!codes.is_empty(), "{status}");
        assert!(codes.iter().all(|found| *found == code), "{codes:?}");
    }
}

#[tokio::test]
async fn status_callback_follows_redirect() {
    let bench = Bench::with("", |options| {
        let origin = options.webhook.trim_end_matches("/sms").to_owned();
        options.status_callback = Some(format!("{origin}/status"));
    })
    .await;
    let moved = vec![("location", "/moved".to_owned())];
    bench.server.script("/status", (307, moved, Vec::new()));
    bench.server.queue_response("/moved", 204, "", "");
    bench.server.queue_twiml("/sms", "<Message>hi</Message>");
    bench
        .send_message(json!({"from": BEN, "to": SMS, "body": "hi"}))
        .await;
    bench
        .wait_for_message(BEN, |message| message["status"] == "delivered")
        .await;
    let form = bench.server.requests_to("/moved").remove(0).form;
    assert_eq!(form.get("MessageStatus"), Some("sent"));
    assert_eq!(bench.debugger_codes().await, Vec::<u64>::new());
}

// A user sends a button's text as `Body`, unless the request has another one.
#[tokio::test]
async fn button_without_text_in_body_sends_its_text() {
    let bench = Bench::new().await;
    bench.server.queue_twiml("/sms", "");
    let button = json!({"text": "Yes", "payload": "confirm:42"});
    for message in [
        json!({"from": ANA, "to": WHATSAPP, "button": button}),
        json!({"from": ANA, "to": WHATSAPP, "button": button, "body": ""}),
        json!({"from": ANA, "to": WHATSAPP, "button": button, "body": "Ja"}),
        json!({"from": ANA, "to": WHATSAPP, "button": button, "params": {"Body": ""}}),
    ] {
        bench.send_message(message).await;
    }
    let requests = bench.server.requests_to("/sms");
    let texts: Vec<_> = requests
        .iter()
        .map(|request| request.form.get("Body").unwrap())
        .collect();
    assert_eq!(texts, ["Yes", "Yes", "Ja", ""]);
    let shown = bench.conversation(ANA).await;
    assert_eq!(
        (&shown[1]["body"], &shown[3]["body"]),
        (&json!("Yes"), &json!(""))
    );

    let mut message = SimulatedMessage::default();
    message.body = Some(String::new());
    message.button = Some(("Yes".to_owned(), "confirm:42".to_owned()));
    let form = message.form("AC00000000000000000000000000000001".parse().unwrap());
    assert_eq!(form.get("Body"), Some("Yes"));
}

// Reports of an unchanged state would make the page and `chat` load it again.
#[tokio::test]
async fn faults_that_change_nothing_are_no_event() {
    let bench = Bench::new().await;
    let mut events = bench.remote.events().await.unwrap();
    bench.set_faults(json!({})).await;
    bench.set_faults(json!({"duplicate": 2})).await;
    bench.set_faults(json!({"duplicate": 2})).await;
    bench.set_faults(json!({})).await;
    for expected in [2, 0] {
        let event = events.next().await.unwrap();
        assert_eq!(event.name, "faults");
        assert_eq!(event.data["duplicate"], expected);
    }
}

// A code that this version does not know links to Twilio's page.
#[tokio::test]
async fn debugger_entry_of_unknown_code_links_to_twilio() {
    let bench = Bench::new().await;
    let code = replyhook::ErrorCode(13803);
    assert_eq!(code.meaning(), None);
    assert_eq!(
        code.meaning_or_link(),
        "see https://www.twilio.com/docs/api/errors/13803"
    );
    bench.server.queue_response("/sms", 500, "text/plain", "");
    bench.says("hi").await;
    let entries = bench.remote.get(&["debugger"]).await.unwrap();
    let url = "https://www.twilio.com/docs/api/errors/11217";
    assert_eq!(entries[0]["more_info"], url);
}
