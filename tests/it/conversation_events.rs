//! Webhooks of Twilio Conversations at the primary URL: verified, passed to a hook, and not to the handler.

use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use replyhook::{
    Address, Clock, Context, ConversationEvent, InboundMessage, ManualClock, SystemClock,
};
use tokio::sync::Notify;

use crate::support::{ACCOUNT, EMPTY, TestApp, Webhook, twiml_message};

const CONVERSATION: &str = "CH00000000000000000000000000000001";

/// Returns the webhook of a group conversation of three people.
fn event() -> Webhook {
    Webhook::form(
        "/webhook",
        &[
            ("EventType", "onConversationAdded"),
            ("MessagingBinding.Address", "+15550003333"),
            ("AccountSid", ACCOUNT),
            ("MessagingBinding.ProxyAddress", "+15550002222"),
            ("MessagingBinding.Address", "+15550001111"),
            ("ConversationSid", CONVERSATION),
            ("MessagingBinding.Address", "+15550003333"),
            ("ChatServiceSid", "IS00000000000000000000000000000001"),
            ("Body", "hello all"),
            ("MessagingBinding.AuthorAddress", "+15550001111"),
            ("Source", "SMS"),
            ("RetryCount", "1"),
        ],
    )
}

type Signal = Arc<Notify>;

/// A handler that must not run for an event.
async fn never(_cx: Context, _message: InboundMessage) -> String {
    "asked".to_owned()
}

// The signature is verified although parameters of an event may repeat.
#[tokio::test]
async fn conversation_event_reaches_hook_but_not_bot() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let recorder = events.clone();
    let app = TestApp::build(&[], |app| {
        app.handler(never)
            .on_conversation_event(move |event: ConversationEvent| {
                recorder.lock().unwrap().push(event);
                std::future::ready(())
            })
    });
    assert_eq!(app.send(event()).await.twiml(), EMPTY);
    let message = event()
        .with("EventType", "onMessageAdded")
        .with("MessageSid", "IM00000000000000000000000000000001");
    assert_eq!(app.send(message).await.twiml(), EMPTY);
    app.send(event().signature("AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
        .await
        .assert_rejected(403);
    app.send(event().also("ConversationSid", "CH00000000000000000000000000000002"))
        .await
        .assert_rejected(400);
    assert_eq!(app.message_count().await, 0);
    let events = std::mem::take(&mut *events.lock().unwrap());
    assert_eq!(events.len(), 2);
    let event = &events[0];
    assert_eq!(event.event_type, "onConversationAdded");
    assert_eq!(event.conversation_sid.unwrap().as_str(), CONVERSATION);
    let addresses = ["+15550003333", "+15550001111", "+15550003333"].map(Address::from);
    assert_eq!(event.addresses, addresses);
    assert_eq!(event.proxy_address, Some("+15550002222".into()));
    assert_eq!(event.body.as_deref(), Some("hello all"));
    assert_eq!(
        (event.source.as_deref(), event.retry_count),
        (Some("SMS"), Some(1))
    );
    assert_eq!(
        event.params.get("MessagingBinding.AuthorAddress"),
        Some("+15550001111")
    );
    let sid = events[1].message_sid.as_deref();
    assert_eq!(sid, Some("IM00000000000000000000000000000001"));
    let series = r#"replyhook_webhooks_total{endpoint="primary",outcome="conversation_event"}"#;
    app.wait_for(series, 2.0).await;
}

#[tokio::test]
async fn event_with_missing_or_panicking_hook_is_acknowledged() {
    let app = TestApp::with(never);
    assert_eq!(app.send(event()).await.twiml(), EMPTY);
    let app = TestApp::build(&[], |app| {
        app.handler(never)
            .on_conversation_event(|_| async { panic!("in the hook") })
    });
    assert_eq!(app.send(event()).await.twiml(), EMPTY);
    assert_eq!(app.says(1, "hi").await, twiml_message("asked"));
}

// Twilio gets its response within four seconds while the hook still runs.
#[tokio::test]
async fn slow_event_hook_continues_after_response() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let (begun, go, done) = (Signal::default(), Signal::default(), Signal::default());
    let signals = (begun.clone(), go.clone(), done.clone());
    let time = clock.clone();
    let app = TestApp::build(&[], |app| {
        let app = app.handler(never).clock(time);
        app.on_conversation_event(move |_| {
            let (begun, go, done) = signals.clone();
            async move {
                begun.notify_one();
                go.notified().await;
                done.notify_one();
            }
        })
    });
    app.wait_until_ready().await;
    let answered = async {
        begun.notified().await;
        clock.advance(SignedDuration::from_secs(4));
    };
    let (answer, ()) = tokio::join!(app.send_without_waiting(event()), answered);
    assert_eq!(answer.twiml(), EMPTY);
    go.notify_one();
    done.notified().await;
}
