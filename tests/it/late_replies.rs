//! Replies that miss the deadline or do not fit into TwiML.
//!
//! They go via the REST API once, in order, and never to a user who opted out. The phone of [`FakeTwilio`] shows it.

use std::sync::Arc;
use std::time::Duration;

use replyhook::clock::SignedDuration;
use replyhook::{
    Clock, Context, HandlerError, InboundMessage, ManualClock, Reply, ReplyMessage, SystemClock,
};
use tokio::sync::Semaphore;

use crate::support::twilio::{Fault, SentVia};
use crate::support::{
    ACCOUNT, EMPTY, FakeTwilio, OTHER_TOKEN, TestApp, Webhook, handler_with_permits, twiml_message,
};

const USER: &str = "whatsapp:+15550001111";
const SHORT_DEADLINE: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "150");

// It is sent with the account and the auth token that signed the webhook.
#[tokio::test(flavor = "multi_thread")]
async fn late_reply_is_acknowledged_then_sent_once() {
    let twilio = FakeTwilio::start();
    twilio.logins(&[(ACCOUNT, OTHER_TOKEN)]);
    let go = Arc::new(Semaphore::new(0));
    let env = [SHORT_DEADLINE, ("TWILIO_AUTH_TOKEN_SECONDARY", OTHER_TOKEN)];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(handler_with_permits(&go)));
    let late = Webhook::message(1, "late").token(OTHER_TOKEN);
    assert_eq!(app.send(late.clone()).await.twiml(), EMPTY);
    go.add_permits(1);
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via, phone[0].from.as_str()),
        ("late", SentVia::Rest, "whatsapp:+15550002222")
    );
    // A redelivery gets the same empty response.
    assert_eq!(app.send(late).await.twiml(), EMPTY);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
    assert_eq!(twilio.posts()[0].user, ACCOUNT);
}

// The main account sends with its API key, the subaccount with its own auth token.
#[tokio::test(flavor = "multi_thread")]
async fn rest_reply_uses_credentials_of_its_account() {
    let key = "SK00000000000000000000000000000001";
    let sub = "AC00000000000000000000000000000002";
    let twilio = FakeTwilio::start();
    twilio.logins(&[(key, "s3cret"), (sub, OTHER_TOKEN)]);
    let sub_token = format!("REPLYHOOK__TWILIO__ACCOUNTS__{sub}__AUTH_TOKEN");
    let env = [
        SHORT_DEADLINE,
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__TWILIO__API_KEY_SID", key),
        ("REPLYHOOK__TWILIO__API_KEY_SECRET", "s3cret"),
        (&sub_token, OTHER_TOKEN),
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| {
        app.handler(async |_, _| {
            ["one", "two"]
                .map(ReplyMessage::text)
                .into_iter()
                .chain(std::iter::repeat_n(ReplyMessage::text("more"), 9))
                .collect::<Reply>()
        })
    });
    app.send(Webhook::message(1, "hi")).await.twiml();
    twilio.wait_for_phone(USER, 11);
    let other = Webhook::message(2, "hi")
        .with("AccountSid", sub)
        .token(OTHER_TOKEN);
    app.send(other).await.twiml();
    twilio.wait_for_phone(USER, 22);
    let users: Vec<String> = twilio.posts().into_iter().map(|post| post.user).collect();
    assert!(users[..11].iter().all(|user| user == key), "{users:?}");
    assert!(users[11..].iter().all(|user| user == sub), "{users:?}");
}

// With `From` alone, the service's opt-outs and settings would not apply.
#[tokio::test(flavor = "multi_thread")]
async fn rest_reply_names_messaging_service_of_its_message() {
    let service = "MG00000000000000000000000000000001";
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |_, _| {
            (0..11)
                .map(|number| match number {
                    10 => ReplyMessage::text("by another").from("+15550004444"),
                    _ => ReplyMessage::text(number.to_string()),
                })
                .collect::<Reply>()
        })
    });
    // By SMS, where another sender needs no window of its own.
    let message = Webhook::message(1, "hi")
        .with("From", "+15550001111")
        .with("To", "+15550002222")
        .with("MessagingServiceSid", service);
    assert_eq!(app.send(message).await.twiml(), EMPTY);
    twilio.wait_for_phone("+15550001111", 11);
    let posts = twilio.posts();
    let (by_another, others) = posts.split_last().unwrap();
    for post in others {
        assert_eq!(post.form.get("From"), Some("+15550002222"));
        assert_eq!(post.form.get("MessagingServiceSid"), Some(service));
    }
    // A sender that the bot has chosen may be outside of the service.
    assert_eq!(by_another.form.get("From"), Some("+15550004444"));
    assert_eq!(by_another.form.get("MessagingServiceSid"), None);
}

// A reply that does not fit one TwiML document goes entirely via the REST API.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_reply_is_sent_via_rest_in_order() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |_, _| {
            (0..12)
                .map(|number| ReplyMessage::text(number.to_string()))
                .collect::<Reply>()
        })
    });
    assert_eq!(app.says(1, "hi").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 12);
    let texts: Vec<String> = phone.into_iter().map(|message| message.body).collect();
    assert_eq!(
        texts,
        (0..12).map(|n: u32| n.to_string()).collect::<Vec<_>>()
    );
}

// It goes via the REST API, and only while that user's window is open.
#[tokio::test(flavor = "multi_thread")]
async fn reply_to_another_user_respects_opt_out() {
    let other = "whatsapp:+15550009999";
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |_, _| {
            Reply::from(ReplyMessage::text("told you").to("whatsapp:+15550009999"))
        })
    });
    // The window of the other user is closed, because they never wrote.
    assert_eq!(app.says(1, "tell them").await, EMPTY);
    app.wait_for(r#"replyhook_replies_total{outcome="failed"}"#, 1.0)
        .await;
    app.send(Webhook::message(2, "hi").with("From", other))
        .await
        .twiml();
    assert_eq!(app.says(3, "tell them").await, EMPTY);
    twilio.wait_for_phone(other, 1);
    app.send(Webhook::message(4, "stop").with("From", other))
        .await
        .twiml();
    assert_eq!(app.says(5, "tell them").await, EMPTY);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.phone(other).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_redirect_or_failure_sends_nothing() {
    let twilio = FakeTwilio::start();
    let go = Arc::new(Semaphore::new(0));
    let wait = go.clone();
    let app = TestApp::with_twilio(&twilio, &[SHORT_DEADLINE], |app| {
        app.handler(move |_: Context, message: InboundMessage| {
            let wait = wait.clone();
            async move {
                wait.acquire().await.unwrap().forget();
                match message.body.as_str() {
                    "redirect" => Reply::redirect("https://webhooks.twilio.com/v1/Flows/FW1")
                        .map_err(HandlerError::new),
                    _ => Err(HandlerError::new("no")),
                }
            }
        })
    });
    for (number, text) in [(1, "redirect"), (2, "fail")] {
        let from = format!("whatsapp:+1555000{number:04}");
        let webhook = Webhook::message(number, text).with("From", &from);
        assert_eq!(app.send(webhook).await.twiml(), EMPTY);
    }
    let messages = &app.readiness().await["checks"]["messages"];
    assert_eq!(
        (&messages["deferred"], &messages["received"]),
        (&2.into(), &0.into())
    );
    let deferred = r#"replyhook_messages{state="deferred"}"#;
    assert_eq!(app.metric(deferred).await, 2.0);
    go.add_permits(2);
    app.wait_for("replyhook_late_failures_total", 2.0).await;
    app.wait_for("replyhook_handlers_running", 0.0).await;
    app.readiness().await;
    app.wait_for(deferred, 0.0).await;
    assert_eq!(twilio.posts().len(), 0);
    assert_eq!(app.outbox().await["pending"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_65_send_after_429_waits_for_retry_after() {
    let twilio = FakeTwilio::start();
    let busy = Fault::Status {
        status: 429,
        code: Some(20429),
        retry_after: Some(7),
    };
    twilio.fault(busy, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "retry").await;
    // Jitter may lengthen the seven seconds, and never shortens them.
    clock.advance(Duration::from_secs(6).try_into().unwrap());
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    assert_eq!(app.outbox().await["oldest_s"], 6);
    assert!(app.metric("replyhook_outbox_oldest_seconds").await >= 6.0);
    clock.advance(Duration::from_mins(1).try_into().unwrap());
    assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
}

// Twilio answers 400, and the queue drains by itself.
#[tokio::test(flavor = "multi_thread")]
async fn send_to_full_queue_is_retried_like_429() {
    let twilio = FakeTwilio::start();
    twilio.fault(rejection(400, 21611), 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "retry").await;
    assert_eq!(app.readiness().await["checks"]["rest"], "ok");
    // The account is paused, so its other messages wait too.
    let other = Webhook::message(2, "hi").with("From", "whatsapp:+15550009999");
    app.send(other).await.twiml();
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    clock.advance(Duration::from_secs(4).try_into().unwrap());
    assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
    twilio.wait_for_phone("whatsapp:+15550009999", 11);
}

// The second 404 is final.
#[tokio::test(flavor = "multi_thread")]
async fn not_found_send_is_retried_once_after_2_seconds() {
    for (faults, posts, outcome) in [(1, 12, "sent"), (2, 2, "failed")] {
        let twilio = FakeTwilio::start();
        twilio.fault(rejection(404, 20404), faults);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = build_overflowing_app(&twilio, &clock, &[]);
        wait_for_outcome(&app, "retry").await;
        clock.advance(Duration::from_millis(1_900).try_into().unwrap());
        app.wait_for_worker_rounds(2).await;
        assert_eq!(twilio.posts().len(), 1);
        clock.advance(Duration::from_millis(100).try_into().unwrap());
        twilio.wait_for_posts(posts);
        let series = format!(r#"replyhook_replies_total{{outcome="{outcome}"}}"#);
        app.wait_for(&series, if faults == 1 { 11.0 } else { 1.0 })
            .await;
        app.wait_for_worker_rounds(2).await;
        assert_eq!(twilio.posts().len(), posts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn excessive_retry_after_is_capped_at_15_minutes() {
    let twilio = FakeTwilio::start();
    let busy = Fault::Status {
        status: 429,
        code: Some(20429),
        retry_after: Some(99_999_999),
    };
    twilio.fault(busy, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "retry").await;
    clock.advance(Duration::from_mins(14).try_into().unwrap());
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    clock.advance(Duration::from_mins(2).try_into().unwrap());
    assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn part_waits_for_delivered_status_of_part_before() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let env = [("REPLYHOOK__REPLY__WAIT_FOR_DELIVERY_MS", "5000")];
    let app = build_overflowing_app(&twilio, &clock, &env);
    wait_for_outcome(&app, "sent").await;
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    for (status, posts) in [("sent", 1), ("delivered", 2)] {
        let sid = twilio.phone(USER)[0].sid.clone();
        app.send(twilio.status_webhook(&sid, status, None))
            .await
            .twiml();
        app.wait_for_worker_rounds(2).await;
        assert_eq!(twilio.wait_for_posts(posts).len(), posts, "{status}");
    }
    // Without a callback, the wait ends.
    app.wait_for(r#"replyhook_replies_total{outcome="sent"}"#, 2.0)
        .await;
    clock.advance(Duration::from_millis(4_900).try_into().unwrap());
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 2);
    clock.advance(Duration::from_millis(200).try_into().unwrap());
    twilio.wait_for_posts(3);
}

fn rejection(status: u16, code: u32) -> Fault {
    Fault::Status {
        status,
        code: Some(code),
        retry_after: None,
    }
}

/// Creates an app with a manual clock, whose replies have too many messages for TwiML.
fn build_overflowing_app(
    twilio: &FakeTwilio,
    clock: &Arc<ManualClock>,
    env: &[(&str, &str)],
) -> TestApp {
    let shared = clock.clone();
    TestApp::with_twilio(twilio, env, |app| {
        app.clock(shared)
            .handler(async |_, message: InboundMessage| {
                (0..11)
                    .map(|number| ReplyMessage::text(format!("{} {number}", message.body)))
                    .collect::<Reply>()
            })
    })
}

/// Sends a message to such an app, and waits for the outcome of the first REST call.
async fn wait_for_outcome(app: &TestApp, outcome: &str) {
    app.says(1, "hi").await;
    let series = format!(r#"replyhook_replies_total{{outcome="{outcome}"}}"#);
    app.wait_for(&series, 1.0).await;
}

// The REST call broke off after Twilio had accepted the message.
#[tokio::test(flavor = "multi_thread")]
async fn threat_66_unknown_send_found_in_list_is_not_repeated() {
    for fault in [
        Fault::AcceptedThenReset,
        Fault::AcceptedThenGarbage,
        Fault::AcceptedThenStatus(500),
    ] {
        let twilio = FakeTwilio::start();
        twilio.fault(fault, 1);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = build_overflowing_app(&twilio, &clock, &[]);
        wait_for_outcome(&app, "unknown").await;
        assert_eq!(twilio.phone(USER).len(), 1, "the rest waits");
        clock.advance(Duration::from_secs(3).try_into().unwrap());
        let phone = twilio.wait_for_phone(USER, 11);
        app.wait_for_outbox("pending", 0).await;
        let texts: Vec<_> = phone.iter().map(|message| message.body.clone()).collect();
        assert_eq!(
            texts,
            (0..11).map(|n: u32| format!("hi {n}")).collect::<Vec<_>>(),
            "{fault:?}"
        );
        assert_eq!(twilio.posts().len(), 11, "{fault:?}");
    }
}

// The setting outbound.on_unknown decides; a held message also holds back the rest of its reply.
#[tokio::test(flavor = "multi_thread")]
async fn threat_66_unlisted_unknown_send_is_held_or_resent() {
    for (on_unknown, texts) in [("hold", 0), ("resend", 11)] {
        let twilio = FakeTwilio::start();
        twilio.fault(Fault::ResetBefore, 1);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let env = [("REPLYHOOK__OUTBOUND__ON_UNKNOWN", on_unknown)];
        let app = build_overflowing_app(&twilio, &clock, &env);
        wait_for_outcome(&app, "unknown").await;
        // A list that cannot be read does not count as a look-up.
        twilio.list_fault(500, 1);
        // One look-up fails, and two find nothing. The clock at the end of each sets the time of the next one.
        for looks in 1..=3 {
            clock.advance(Duration::from_secs(10).try_into().unwrap());
            app.wait_until(|| twilio.lists().len() == looks).await;
        }
        if texts == 0 {
            app.wait_for_outbox("held", 1).await;
            app.wait_for_outbox("pending", 10).await;
            assert_eq!(twilio.posts().len(), 1);
        } else {
            assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
        }
        assert_eq!(twilio.lists().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_66_status_callback_resolves_unknown_send() {
    let twilio = FakeTwilio::start();
    twilio.fault(Fault::AcceptedThenReset, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "unknown").await;
    let sid = twilio.phone(USER)[0].sid.clone();
    app.send(twilio.status_webhook(&sid, "delivered", None))
        .await
        .twiml();
    // The other messages are sent, without a look-up of the first.
    assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
    assert_eq!(twilio.lists().len(), 0);
}

// After wrong credentials, the readiness check reports the REST API as failing.
#[tokio::test(flavor = "multi_thread")]
async fn threat_67_rejected_send_fails_message_with_error_code() {
    for (status, code, rest) in [
        (400, 21211, "ok"),
        (400, 63016, "ok"),
        (401, 20003, "failing"),
    ] {
        let twilio = FakeTwilio::start();
        let rejection = Fault::Status {
            status,
            code: Some(code),
            retry_after: None,
        };
        twilio.fault(rejection, 1);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = build_overflowing_app(&twilio, &clock, &[]);
        wait_for_outcome(&app, "failed").await;
        let errors = format!(r#"replyhook_reply_errors_total{{error_code="{code}"}}"#);
        assert_eq!(app.metric(&errors).await, 1.0);
        let readiness = app.readiness().await;
        assert_eq!(readiness["ready"], true);
        assert_eq!(readiness["checks"]["rest"], rest, "{code}");
        app.wait_for_worker_rounds(2).await;
        assert_eq!(twilio.posts().len(), 1, "the rest is held back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_67_error_21610_opts_user_out() {
    let twilio = FakeTwilio::start();
    let rejection = Fault::Status {
        status: 400,
        code: Some(21610),
        retry_after: None,
    };
    twilio.fault(rejection, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "failed").await;
    assert_eq!(app.says(2, "hi again").await, EMPTY);
    app.wait_for(
        r#"replyhook_webhooks_total{endpoint="primary",outcome="opted_out"}"#,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_68_unsent_reply_is_sent_after_twilio_outage() {
    let twilio = FakeTwilio::start();
    twilio.start_outage();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "retry").await;
    assert_eq!(app.readiness().await["checks"]["rest"], "failing");
    twilio.end_outage();
    clock.advance(Duration::from_secs(10).try_into().unwrap());
    assert_eq!(twilio.wait_for_phone(USER, 11).len(), 11);
    assert_eq!(app.readiness().await["checks"]["rest"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_43_stop_cancels_pending_rest_reply() {
    let twilio = FakeTwilio::start();
    twilio.start_outage();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = build_overflowing_app(&twilio, &clock, &[]);
    wait_for_outcome(&app, "retry").await;
    app.says(2, "STOP").await;
    twilio.end_outage();
    clock.advance(Duration::from_mins(1).try_into().unwrap());
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 0);
}

// The template is sent only if it is configured and consent allows it.
#[tokio::test(flavor = "multi_thread")]
async fn threat_45_reply_after_window_fails_or_uses_template() {
    let template = "HX00000000000000000000000000000001";
    for (env, shown) in [
        (&[][..], 0),
        (
            &[
                ("REPLYHOOK__REPLY__WINDOW_CLOSED_TEMPLATE", template),
                ("REPLYHOOK__CONSENT__REQUIRED", "false"),
            ][..],
            11,
        ),
        // A template needs a recorded opt-in. An inbound message is not an opt-in.
        (
            &[("REPLYHOOK__REPLY__WINDOW_CLOSED_TEMPLATE", template)][..],
            0,
        ),
    ] {
        let twilio = FakeTwilio::start();
        twilio.start_outage();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = build_overflowing_app(&twilio, &clock, env);
        wait_for_outcome(&app, "retry").await;
        twilio.end_outage();
        // The window closes two minutes before the 24 hours are over.
        clock.advance(Duration::from_mins(24 * 60 - 2).try_into().unwrap());
        if shown == 0 {
            app.wait_for(r#"replyhook_replies_total{outcome="failed"}"#, 1.0)
                .await;
            assert_eq!(twilio.posts().len(), 0);
        } else {
            twilio.wait_for_phone(USER, shown);
            let first = twilio.posts()[0].form.clone();
            assert_eq!(first.get("ContentSid"), Some(template));
            assert_eq!(first.get("ContentVariables"), Some(r#"{"1":"hi 0"}"#));
            assert_eq!(first.get("Body"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_racing_deadline_is_sent_exactly_once() {
    // Handler and deadline end at the same moment, for 60 messages. Each reply takes exactly one path.
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[("REPLYHOOK__REPLY__DEADLINE_MS", "30")], |app| {
        app.handler(async |_, message: InboundMessage| {
            tokio::time::sleep(Duration::from_millis(30)).await;
            message.body
        })
    });
    let app = Arc::new(app);
    let mut tasks = Vec::new();
    for number in 0..60 {
        let (app, from) = (app.clone(), format!("whatsapp:+1555000{number:04}"));
        tasks.push(tokio::spawn(async move {
            let text = format!("text {number}");
            let answer = app
                .send(Webhook::message(number, &text).with("From", &from))
                .await;
            (from, text, answer.twiml().to_owned())
        }));
    }
    let (mut by_twiml, mut by_rest) = (0, 0);
    for task in tasks {
        let (from, text, answer) = task.await.unwrap();
        if answer == twiml_message(&text) {
            by_twiml += 1;
            assert_eq!(twilio.phone(&from).len(), 0);
        } else {
            by_rest += 1;
            assert_eq!(answer, EMPTY);
            assert_eq!(twilio.wait_for_phone(&from, 1).len(), 1);
        }
    }
    app.wait_for_outbox("pending", 0).await;
    assert_eq!((by_twiml + by_rest, twilio.posts().len()), (60, by_rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_58_clock_jump_during_handler_sends_reply_once() {
    let hours = SignedDuration::from_hours;
    // Forward past the deadline, and back to before the message arrived.
    for jump in [SignedDuration::from_mins(1), hours(-2)] {
        let twilio = FakeTwilio::start();
        let go = Arc::new(Semaphore::new(0));
        let began = SystemClock.now();
        let clock = Arc::new(ManualClock::new(began));
        let shared = clock.clone();
        let app = TestApp::with_twilio(&twilio, &[], |app| {
            app.clock(shared).handler(handler_with_permits(&go))
        });
        let app = Arc::new(app);
        app.wait_until_ready().await;
        let client = app.clone();
        let request = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
        app.wait_for("replyhook_handlers_running", 1.0).await;
        clock.advance(jump);
        let is_late = jump.is_positive();
        let answer = if is_late {
            let answer = request.await.unwrap();
            go.add_permits(1);
            assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "hi");
            answer
        } else {
            go.add_permits(1);
            request.await.unwrap()
        };
        let expected = if is_late {
            EMPTY.to_owned()
        } else {
            twiml_message("hi")
        };
        assert_eq!(answer.twiml(), expected);
        app.wait_for_outbox("pending", 0).await;
        assert_eq!(app.says(1, "hi").await, expected);
        assert_eq!(twilio.posts().len(), usize::from(is_late));
        // The window counts from the later of the two times, even if that is the time of the first message.
        go.add_permits(1);
        assert_eq!(app.says(2, "more").await, twiml_message("more"));
        let (sender, user) = ("whatsapp:+15550002222".into(), USER.into());
        let conversation = app
            .store
            .conversation(&sender, &user)
            .await
            .unwrap()
            .unwrap();
        let later = began.max(clock.now());
        assert!(conversation.window(later + hours(23)).is_some());
        assert!(conversation.window(later + hours(24)).is_none());
    }
}
