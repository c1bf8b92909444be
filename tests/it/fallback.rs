//! The fallback URL: every verified and well-formed call gets a response that Twilio can use.

use std::sync::{Arc, Mutex};

use replyhook::{Context, FallbackCause, HandlerError, InboundMessage};
use tokio::sync::Semaphore;

use crate::support::{EMPTY, FakeTwilio, TestApp, Webhook, base64_of, twiml_message};

fn fallback_call(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://hooks.example.test/webhook")
}

const USER: &str = "whatsapp:+15550001111";
const FALLBACK_TEXT: [(&str, &str); 1] = [("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry & later")];

#[tokio::test]
async fn fallback_runs_handler_with_cause() {
    let causes = Arc::new(Mutex::new(Vec::new()));
    let recorder = causes.clone();
    let app = TestApp::build(&[], |app| {
        app.on_fallback(move |cause: FallbackCause, _message| {
            recorder.lock().unwrap().push(cause);
            async {}
        })
        .handler(async |cx: Context, _| {
            let cause = cx.fallback().unwrap();
            format!(
                "{} {}",
                cause.error_code.unwrap(),
                cause.error_url.as_deref().unwrap()
            )
        })
    });
    let answer = app.send(fallback_call(1, "hi")).await;
    assert_eq!(
        answer.twiml(),
        twiml_message("11200 https://hooks.example.test/webhook")
    );
    assert_eq!(
        app.metric(r#"replyhook_fallback_calls_total{error_code="11200"}"#)
            .await,
        1.0
    );
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="fallback",outcome="fallback"}"#)
            .await,
        1.0
    );
    let causes = causes.lock().unwrap();
    assert_eq!(
        causes[0].error_code.unwrap().meaning(),
        Some("the URL could not be fetched, or its answer has no content type")
    );
}

// Later calls for the message get the same response without another handler run.
#[tokio::test]
async fn fallback_with_failing_handler_sends_fallback_text() {
    for (env, expected) in [
        (&FALLBACK_TEXT[..], twiml_message("Sorry &amp; later")),
        (&[], EMPTY.to_owned()),
    ] {
        let failing = TestApp::build(env, |app| {
            app.handler(async |_, _| Err::<(), _>(HandlerError::new("no")))
        });
        assert_eq!(failing.send(fallback_call(1, "hi")).await.twiml(), expected);
        let panicking = TestApp::build(env, |app| {
            app.handler(async |_, _| -> &str { panic!("no") })
        });
        assert_eq!(
            panicking.send(fallback_call(2, "hi")).await.twiml(),
            expected
        );
        assert_eq!(failing.send(fallback_call(1, "hi")).await.twiml(), expected);
        assert_eq!(
            failing.send(Webhook::message(1, "hi")).await.twiml(),
            expected
        );
        let env_with_deadline = [env, &[("REPLYHOOK__REPLY__DEADLINE_MS", "300")]].concat();
        let slow = TestApp::build(&env_with_deadline, |app| {
            app.handler(async |cx: Context, _| {
                if cx.attempt() == 1 {
                    return Err(HandlerError::new("no"));
                }
                std::future::pending::<Result<(), _>>().await
            })
        });
        slow.send(Webhook::message(4, "hi"))
            .await
            .assert_rejected(500);
        assert_eq!(slow.send(fallback_call(4, "hi")).await.twiml(), expected);
    }
}

// Without a fallback text there is nothing to send in its place, so a slow second attempt still replies.
#[tokio::test(flavor = "multi_thread")]
async fn fallback_call_without_text_gets_late_reply_of_slow_second_attempt() {
    let twilio = FakeTwilio::start();
    let go = Arc::new(Semaphore::new(0));
    let may_reply = go.clone();
    let env = [("REPLYHOOK__REPLY__DEADLINE_MS", "300")];
    let app = TestApp::with_twilio(&twilio, &env, |app| {
        app.handler(move |cx: Context, _| {
            let go = may_reply.clone();
            async move {
                if cx.attempt() == 1 {
                    return Err(HandlerError::new("no"));
                }
                go.acquire().await.unwrap().forget();
                Ok("Here I am")
            }
        })
    });
    app.send(Webhook::message(1, "hi"))
        .await
        .assert_rejected(500);
    assert_eq!(app.send(fallback_call(1, "hi")).await.twiml(), EMPTY);
    go.add_permits(1);
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "Here I am");
}

#[tokio::test]
async fn fallback_is_served_during_overload_and_shutdown() {
    let env = [
        FALLBACK_TEXT[0],
        ("REPLYHOOK__HANDLER__MAX_CONCURRENT", "1"),
        ("REPLYHOOK__SERVER__MAX_IN_FLIGHT", "1"),
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "5"),
    ];
    let app = TestApp::build(&env, |app| {
        app.handler(
            async |_, message: InboundMessage| match message.body.as_str() {
                "slow" => std::future::pending().await,
                _ => message.body,
            },
        )
    });
    let app = Arc::new(app);
    let client = app.clone();
    let stuck = tokio::spawn(async move { client.send(Webhook::message(1, "slow")).await });
    app.wait_for("replyhook_handlers_running", 1.0).await;
    assert_eq!(
        app.send(Webhook::message(2, "hi"))
            .await
            .assert_rejected(503),
        "overloaded\n"
    );
    assert_eq!(
        app.send(fallback_call(3, "hi")).await.twiml(),
        twiml_message("Sorry &amp; later")
    );
    stuck.abort();
    app.start_draining().await;
    assert_eq!(
        app.send(Webhook::message(4, "hi"))
            .await
            .assert_rejected(503),
        "shutting down\n"
    );
    assert_eq!(
        app.send(fallback_call(5, "hi")).await.twiml(),
        twiml_message("Sorry &amp; later")
    );
}

#[tokio::test]
async fn unverified_or_malformed_fallback_call_is_rejected() {
    let app = TestApp::build(&FALLBACK_TEXT, |app| app);
    app.send(fallback_call(1, "hi").signature(&base64_of(&[0; 20])))
        .await
        .assert_rejected(403);
    app.send(fallback_call(2, "hi").signature(""))
        .await
        .assert_rejected(403);
    app.send(fallback_call(3, "hi").without("MessageSid"))
        .await
        .assert_rejected(400);
    app.send(fallback_call(4, "hi").also("ErrorCode", "11205"))
        .await
        .assert_rejected(400);
    app.send(fallback_call(5, "hi").content_type(Some("application/json")))
        .await
        .assert_rejected(415);
}

#[tokio::test]
async fn fallback_call_without_known_cause_gets_response() {
    let app = TestApp::echo();
    app.send(
        fallback_call(1, "hi")
            .without("ErrorCode")
            .without("ErrorUrl"),
    )
    .await
    .twiml();
    app.send(fallback_call(2, "hi").with("ErrorCode", "not a number"))
        .await
        .twiml();
    app.send(fallback_call(3, "hi").with("ErrorCode", "99999"))
        .await
        .twiml();
    assert_eq!(
        app.metric(r#"replyhook_fallback_calls_total{error_code="other"}"#)
            .await,
        3.0
    );
}
