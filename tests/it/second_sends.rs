//! Messages that Twilio accepted and then reported as failed: the second send, and `messages release`.

use std::sync::Arc;
use std::time::Duration;

use replyhook::{Clock, ManualClock, Reply, ReplyMessage, SystemClock};

use crate::support::{EMPTY, FakeTwilio, Fault, TempStore, TestApp, Webhook};

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

/// Replies in eleven parts. Twilio accepts all of them, and reports the last one as failed.
fn reply_and_lose_last_part(store: &TempStore, twilio: &FakeTwilio) {
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

// Twilio accepts a call through a Messaging Service before it chooses the number, whose queue may be full.
#[tokio::test(flavor = "multi_thread")]
async fn full_queue_reported_later_is_sent_again() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let app = TestApp::with_twilio(&twilio, &[("REPLYHOOK__REPLY__PATH", "rest")], |app| {
        app.clock(shared).handler(replyhook::Echo)
    });
    app.says(1, "hi").await;
    let first = twilio.wait_for_phone(USER, 1)[0].sid.clone();
    app.wait_for_outbox("pending", 0).await;
    app.send(twilio.status_webhook(&first, "failed", Some(21611)))
        .await
        .twiml();
    app.wait_for_outbox("pending", 1).await;
    advance(&clock, Duration::from_mins(1));
    twilio.wait_for_phone(USER, 2);
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
    reply_and_lose_last_part(&store, &twilio);
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

fn rejected(status: u16, code: Option<u32>) -> Fault {
    Fault::Status {
        status,
        code,
        retry_after: None,
    }
}

// A 404 of a proxy has no code, and Twilio's 429 sometimes has none.
#[test]
fn repeated_calls_are_shown_with_their_cause() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let _server = store.server();
    for (id, fault, line) in [
        (
            1,
            rejected(429, None),
            "retried after: too many requests (20429)",
        ),
        (2, rejected(400, Some(21611)), "(21611)"),
        (
            3,
            rejected(404, None),
            "second send after: not found (20404)",
        ),
        (4, rejected(404, Some(20009)), "(20009)"),
    ] {
        twilio.fault(fault, 1);
        let (code, out, err) = store.send_text("+15550003333", &["--wait=60"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let shown = store.run_ok(&["messages", "show", "--outbound", &id.to_string()]);
        let again = shown.lines().find(|line| line.starts_with("again "));
        assert!(again.is_some_and(|again| again.contains(line)), "{shown}");
        let word = if id < 3 {
            "retried after"
        } else {
            "second send after"
        };
        assert!(again.is_some_and(|again| again.contains(word)), "{shown}");
    }
    let rows = store.run_json(&["messages", "list", "--outbound", "--json"]);
    let causes: Vec<_> = rows
        .iter()
        .map(|row| (row["retried_after"].as_u64(), row["resent_after"].as_u64()))
        .collect();
    assert_eq!(
        causes,
        [
            (None, Some(20009)),
            (None, Some(20404)),
            (Some(21611), None),
            (Some(20429), None),
        ]
    );
}

#[test]
fn waiting_and_stopped_second_send_are_shown_as_such() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let inbound = sid(1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let release = ["messages", "release", &inbound, "--yes"];
    store.app(
        |app| app.clock(shared).handler(async |_, _| reply_via_rest()),
        async |app| {
            app.says(1, "hi").await;
            let last = twilio.wait_for_phone(USER, 11)[10].sid.clone();
            app.wait_for_outbox("pending", 0).await;
            let failed = twilio.status_webhook(&last, "failed", Some(63018));
            app.send(failed).await.twiml();
            app.wait_for_outbox("pending", 1).await;
            let shown = store.run_ok(&["messages", "show", &inbound]);
            assert!(shown.contains("second send due after: "), "{shown}");
            let (code, out, err) = store.run(&release);
            assert_eq!((code, err.as_str()), (1, ""), "{out}");
            assert!(
                out.contains("is sent again by the running server (second send due after: ")
                    && out.contains("nothing to release"),
                "{out}"
            );
            app.says(2, "STOP").await;
            advance(&clock, Duration::from_secs(61));
            app.wait_for_outbox("pending", 0).await;
        },
    );
    let shown = store.run_ok(&["messages", "show", &inbound]);
    assert!(
        shown.contains("no second send after: ") && shown.contains("the user has opted out"),
        "{shown}"
    );
    let (code, out, _) = store.run(&release);
    assert!(code == 1 && out.contains("the user has opted out"), "{out}");
    assert_eq!(twilio.posts().len(), 11);
}

#[test]
fn release_says_that_user_has_opted_out() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let inbound = sid(1);
    // Accepted and not delivered, and rejected by the call.
    reply_and_lose_last_part(&store, &twilio);
    let server = store.server();
    let user = "+15550003333";
    for code in [21612, 21614] {
        twilio.fault(rejected(400, Some(code)), 1);
        let (exit, out, _) = store.send_text(user, &["--wait=60"]);
        assert_eq!(exit, 1, "{out}");
    }
    server.send(&Webhook::message(2, "STOP")).twiml();
    let stop = Webhook::message(3, "STOP").with("From", user);
    server.send(&stop.with("To", "+15550002222")).twiml();
    let sent = twilio.posts().len();
    for (target, id) in [
        (&["release", &inbound, "--yes"][..], 11),
        (&["release", "--failed-with", "21612"], 12),
        (&["release", "13", "--yes"], 13),
        // Not a second time either.
        (&["release", "13", "--yes"], 13),
    ] {
        let (code, out, err) = store.run(&[&["messages"], target].concat());
        assert_eq!((code, err.as_str()), (1, ""), "{target:?}: {out}");
        assert!(
            out.starts_with(&format!("outbound message {id} is not sent"))
                && out.ends_with(": the user has opted out\n")
                && !out.contains("released,"),
            "{target:?}: {out}"
        );
    }
    let shown = store.run_ok(&["messages", "show", &inbound]);
    assert!(shown.contains("reason: the user has opted out"), "{shown}");
    assert!(!shown.contains("messages release"), "{shown}");
    assert_eq!(twilio.posts().len(), sent);
}
