//! The fallback URL: every verified and well-formed call gets a response that Twilio can use.

use std::sync::{Arc, Mutex};

use replyhook::{Context, FallbackCause, HandlerError, InboundMessage};

use crate::support::{EMPTY, TestApp, Webhook, base64_of, says};

fn call(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://hooks.example.test/webhook")
}

const APOLOGY: [(&str, &str); 1] = [("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry & later")];

#[tokio::test]
async fn fallback_runs_handler_with_cause() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let app = TestApp::build(&[], |app| {
        app.on_fallback(move |cause: FallbackCause, _message| {
            tell.lock().unwrap().push(cause);
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
    let answer = app.send(call(1, "hi")).await;
    assert_eq!(
        answer.twiml(),
        says("11200 https://hooks.example.test/webhook")
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
    let told = told.lock().unwrap();
    assert_eq!(
        told[0].error_code.unwrap().meaning(),
        Some(
            "the URL could not be fetched: it took over 15 seconds, answered 4xx or 5xx, or sent no content type"
        )
    );
}

// Later calls for the message get the same response without another handler run.
#[tokio::test]
async fn fallback_with_failing_handler_sends_fallback_text() {
    for (apology, answer) in [
        (&APOLOGY[..], says("Sorry &amp; later")),
        (&[], EMPTY.to_owned()),
    ] {
        let failing = TestApp::build(apology, |app| {
            app.handler(async |_, _| Err::<(), _>(HandlerError::new("no")))
        });
        assert_eq!(failing.send(call(1, "hi")).await.twiml(), answer);
        let panicking = TestApp::build(apology, |app| {
            app.handler(async |_, _| -> &str { panic!("no") })
        });
        assert_eq!(panicking.send(call(2, "hi")).await.twiml(), answer);
        assert_eq!(failing.send(call(1, "hi")).await.twiml(), answer);
        assert_eq!(
            failing.send(Webhook::message(1, "hi")).await.twiml(),
            answer
        );
        let env = [apology, &[("REPLYHOOK__REPLY__DEADLINE_MS", "300")]].concat();
        let slow = TestApp::build(&env, |app| {
            app.handler(async |cx: Context, _| {
                if cx.attempt() == 1 {
                    return Err(HandlerError::new("no"));
                }
                std::future::pending::<Result<(), _>>().await
            })
        });
        slow.send(Webhook::message(4, "hi")).await.rejected(500);
        assert_eq!(slow.send(call(4, "hi")).await.twiml(), answer);
    }
}

#[tokio::test]
async fn fallback_is_served_during_overload_and_shutdown() {
    let env = [
        APOLOGY[0],
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
    let asked = app.clone();
    let stuck = tokio::spawn(async move { asked.send(Webhook::message(1, "slow")).await });
    app.wait_for("replyhook_handlers_running", 1.0).await;
    assert_eq!(
        app.send(Webhook::message(2, "hi")).await.rejected(503),
        "overloaded\n"
    );
    assert_eq!(
        app.send(call(3, "hi")).await.twiml(),
        says("Sorry &amp; later")
    );
    stuck.abort();
    app.draining().await;
    assert_eq!(
        app.send(Webhook::message(4, "hi")).await.rejected(503),
        "shutting down\n"
    );
    assert_eq!(
        app.send(call(5, "hi")).await.twiml(),
        says("Sorry &amp; later")
    );
}

#[tokio::test]
async fn unverified_or_malformed_fallback_call_is_rejected() {
    let app = TestApp::build(&APOLOGY, |app| app);
    app.send(call(1, "hi").signature(&base64_of(&[0; 20])))
        .await
        .rejected(403);
    app.send(call(2, "hi").signature("")).await.rejected(403);
    app.send(call(3, "hi").without("MessageSid"))
        .await
        .rejected(400);
    app.send(call(4, "hi").also("ErrorCode", "11205"))
        .await
        .rejected(400);
    app.send(call(5, "hi").content_type(Some("application/json")))
        .await
        .rejected(415);
}

#[tokio::test]
async fn fallback_call_without_known_cause_gets_response() {
    let app = TestApp::echo();
    app.send(call(1, "hi").without("ErrorCode").without("ErrorUrl"))
        .await
        .twiml();
    app.send(call(2, "hi").with("ErrorCode", "not a number"))
        .await
        .twiml();
    app.send(call(3, "hi").with("ErrorCode", "99999"))
        .await
        .twiml();
    assert_eq!(
        app.metric(r#"replyhook_fallback_calls_total{error_code="other"}"#)
            .await,
        3.0
    );
}
