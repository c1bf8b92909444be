//! Messages that Twilio accepted and then reported as failed: the second send, and `messages release`.

use std::sync::Arc;
use std::time::Duration;

use replyhook::{Clock, ManualClock, Reply, ReplyMessage, SystemClock};

use crate::support::{EMPTY, FakeTwilio, TempStore, TestApp, Webhook};

const USER: &str = "whatsapp:+15550001111";

fn sid(number: u64) -> String {
    format!("SM{number:032x}")
}

/// Replies with more messages than TwiML can carry.
fn reply_via_rest() -> Reply {
    (0..11)
        .map(|number| ReplyMessage::text(number.to_string()))
        .collect()
}

fn advance(clock: &ManualClock, time: Duration) {
    clock.advance(time.try_into().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_message_is_sent_again_after_60_seconds() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.clock(shared).handler(async |_, _| reply_via_rest())
    });
    assert_eq!(app.says(1, "hi").await, EMPTY);
    let last = twilio.wait_for_phone(USER, 11)[10].sid.clone();
    app.wait_for_outbox("pending", 0).await;
    let failed = twilio.status_webhook(&last, "failed", Some(63018));
    for _ in 0..2 {
        app.send(failed.clone()).await.twiml();
    }
    app.wait_for_outbox("pending", 1).await;
    advance(&clock, Duration::from_secs(59));
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 11);
    advance(&clock, Duration::from_secs(1));
    let phone = twilio.wait_for_phone(USER, 12);
    assert_eq!(phone[11].body, "10");
    // A second failure is final.
    app.wait_for_outbox("pending", 0).await;
    let failed = twilio.status_webhook(&phone[11].sid, "failed", Some(63018));
    app.send(failed).await.twiml();
    advance(&clock, Duration::from_hours(1));
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 12);
}

// The second part must not wait a minute, and the answer to a newer message must not overtake it.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_second_send_holds_no_later_part() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let settings = [
        ("REPLYHOOK__REPLY__PATH", "rest"),
        ("REPLYHOOK__REPLY__WAIT_FOR_DELIVERY_MS", "3000"),
    ];
    let app = TestApp::with_twilio(&twilio, &settings, |app| {
        app.clock(shared)
            .handler(async |_, message: replyhook::InboundMessage| {
                ["1", "2"]
                    .map(|part| ReplyMessage::text(format!("{}{part}", message.body)))
                    .into_iter()
                    .collect::<Reply>()
            })
    });
    app.says(1, "a").await;
    let first = twilio.wait_for_phone(USER, 1)[0].sid.clone();
    app.wait_for_outbox("pending", 1).await;
    app.send(twilio.status_webhook(&first, "failed", Some(63018)))
        .await
        .twiml();
    app.says(2, "b").await;
    // Not before the wait is over.
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    for (seconds, posts) in [(3, 2), (3, 3), (3, 4)] {
        advance(&clock, Duration::from_secs(seconds));
        twilio.wait_for_phone(USER, posts);
        app.wait_for_worker_rounds(2).await;
    }
    advance(&clock, Duration::from_secs(52));
    let phone = twilio.wait_for_phone(USER, 5);
    let bodies: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["a1", "a2", "b1", "b2", "a1"]);
}

// The claim checks consent and window, as for any send.
#[tokio::test(flavor = "multi_thread")]
async fn failed_message_is_not_sent_after_stop_or_closed_window() {
    for (text, hours) in [("STOP", 0), ("", 24)] {
        let twilio = FakeTwilio::start();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let shared = clock.clone();
        let app = TestApp::with_twilio(&twilio, &[], |app| {
            app.clock(shared).handler(async |_, _| reply_via_rest())
        });
        app.says(1, "hi").await;
        let last = twilio.wait_for_phone(USER, 11)[10].sid.clone();
        app.wait_for_outbox("pending", 0).await;
        let failed = twilio.status_webhook(&last, "failed", Some(30001));
        app.send(failed).await.twiml();
        if !text.is_empty() {
            app.says(2, text).await;
        }
        advance(&clock, Duration::from_hours(hours) + Duration::from_mins(2));
        app.wait_for_outbox("pending", 0).await;
        assert_eq!(twilio.posts().len(), 11, "{text}");
    }
}

// `retry` and `release` never point at each other for the same message.
#[test]
fn undelivered_reply_is_released_after_confirmation() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let inbound = sid(1);
    store.app(
        |app| app.handler(async |_, _| reply_via_rest()),
        async |app| {
            app.says(1, "hi").await;
            let phone = twilio.wait_for_phone(USER, 11);
            app.wait_for_outbox("pending", 0).await;
            let lost = twilio.status_webhook(&phone[10].sid, "failed", Some(30003));
            app.send(lost).await.twiml();
        },
    );
    let first = twilio.phone(USER)[10].sid.clone();
    let (code, out, _) = store.run(&["messages", "retry", &inbound]);
    assert!(code == 1 && out.contains("messages release"), "{out}");
    let shown = store.run_ok(&["messages", "show", &inbound]);
    assert!(shown.contains("messages release SM"), "{shown}");
    // Found by the reply's own SID too.
    let shown = store.run_ok(&["messages", "show", &first]);
    assert!(shown.contains("state     failed"), "{shown}");
    for target in [&inbound, &first] {
        let (code, out, err) = store.run(&["messages", "release", target]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("use --yes"), "{err}");
    }
    let _server = store.server();
    let released = store.run_ok(&["messages", "release", &inbound, "--yes"]);
    assert!(released.starts_with("1 message released"), "{released}");
    let phone = twilio.wait_for_phone(USER, 12);
    assert_eq!(phone[11].body, "10");
    store.wait_for(&["messages", "list", "--state", "sent"]);
    let shown = store.run_ok(&["messages", "show", &inbound]);
    assert!(shown.contains(&format!("earlier SID {first}")), "{shown}");
    let (code, out, _) = store.run(&["messages", "release", &inbound, "--yes"]);
    assert_eq!((code, out.as_str()), (1, "nothing is held\n"));
    let (code, out, _) = store.run(&["messages", "retry", &inbound]);
    assert!(code == 1 && !out.contains("messages release"), "{out}");
}

#[test]
fn release_of_failed_handler_points_to_retry_only() {
    let store = TempStore::new();
    store.app(
        |app| app.handler(async |_, _| Err::<(), _>(replyhook::HandlerError::new("no"))),
        async |app| app.send(Webhook::message(1, "hi")).await,
    );
    let inbound = sid(1);
    let (code, out, _) = store.run(&["messages", "release", &inbound, "--yes"]);
    assert!(code == 1 && out.contains("messages retry"), "{out}");
    let (code, out, _) = store.run(&["messages", "release", "7", "--yes"]);
    assert!(
        code == 1 && out.contains("message 7 does not exist"),
        "{out}"
    );
    let retried = store.run_ok(&["messages", "retry", &inbound]);
    assert!(!retried.contains("messages release"), "{retried}");
}
