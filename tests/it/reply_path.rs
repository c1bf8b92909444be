//! `reply.path = "rest"`: no response carries a message.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use replyhook::{HandlerError, InboundMessage, Reply};

use crate::support::{EMPTY, FakeTwilio, TestApp, Webhook, replyhook};

const USER: &str = "whatsapp:+15550001111";
const REST: (&str, &str) = ("REPLYHOOK__REPLY__PATH", "rest");

#[tokio::test(flavor = "multi_thread")]
async fn reply_in_time_goes_via_rest() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[REST], |app| {
        app.handler(async |_, message: InboundMessage| message.body)
    });
    assert_eq!(app.says(1, "hi").await, EMPTY);
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "hi");
    assert_eq!(app.says(1, "hi").await, EMPTY);
    let by_rest = r#"replyhook_webhooks_total{endpoint="primary",outcome="by_rest"}"#;
    app.wait_for(by_rest, 1.0).await;
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
}

// Only TwiML can redirect, and a redirect is not a message.
#[tokio::test(flavor = "multi_thread")]
async fn redirect_stays_in_response() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[REST], |app| {
        app.handler(async |_, _| {
            Reply::redirect("https://webhooks.twilio.com/v1/Flows/FW1").map_err(HandlerError::new)
        })
    });
    let twiml = app.says(1, "hi").await;
    assert!(twiml.contains("<Redirect"), "{twiml}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn redirect_with_message() -> Result<Reply, HandlerError> {
    let redirect = Reply::redirect("https://webhooks.twilio.com/v1/Flows/FW1");
    Ok(redirect.map_err(HandlerError::new)?.and("One moment."))
}

// In order, only a response has both: a redirect cannot follow a message that the outbox sends. The log of this thread is
// that of all tasks, since the runtime has one thread.
#[tokio::test]
async fn redirect_with_message_fails_and_log_names_cause() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let app = TestApp::build(&[REST], |app| {
        app.handler(async |_, _| redirect_with_message())
    });
    assert_eq!(app.send(Webhook::message(1, "hi")).await.status, 500);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let cause = "a redirect with messages that go via the REST API, which cannot redirect";
    assert!(log.contains(cause), "{log}");
    // Without `reply.path = "rest"`, the response has both.
    let app = TestApp::build(&[], |app| app.handler(async |_, _| redirect_with_message()));
    let twiml = app.says(1, "hi").await;
    assert!(
        twiml.contains("One moment.") && twiml.contains("<Redirect"),
        "{twiml}"
    );
}

// The confirmation is the one message that a user gets after an opt-out.
#[tokio::test(flavor = "multi_thread")]
async fn opt_out_is_confirmed_via_rest_once() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[REST], |app| {
        app.handler(async |_, message: InboundMessage| message.body)
    });
    assert_eq!(app.says(1, "STOP").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 1);
    assert!(phone[0].body.contains("no more messages"));
    for (number, text) in [(1, "STOP"), (2, "STOP"), (3, "hi")] {
        assert_eq!(app.says(number, text).await, EMPTY);
    }
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
    assert_eq!(app.says(4, "START").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 2);
    assert!(phone[1].body.contains("messages from us again"));
    // On SMS, Twilio confirms.
    let sms = Webhook::message(5, "STOP")
        .with("From", "+15550001111")
        .with("To", "+15550002222");
    assert_eq!(app.send(sms).await.twiml(), EMPTY);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_text_goes_via_rest() {
    let twilio = FakeTwilio::start();
    let env = [REST, ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry.")];
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let app = TestApp::with_twilio(&twilio, &env, |app| {
        app.handler(move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>(HandlerError::new("no")) }
        })
    });
    let webhook = Webhook::message(1, "hi");
    assert_eq!(app.send(webhook.clone()).await.status, 500);
    let call = webhook
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://bot.example.test/webhook");
    assert_eq!(app.send(call).await.twiml(), EMPTY);
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "Sorry.");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn check_advises_rest_outside_of_us1() {
    let check = |region, path| {
        let env = [
            ("TWILIO_AUTH_TOKEN", crate::support::TOKEN),
            ("PUBLIC_URL", "https://bot.example.test"),
            ("DATABASE_URL", "sqlite::memory:"),
            ("REPLYHOOK__TWILIO__REGION", region),
            ("REPLYHOOK__TWILIO__EDGE", "dublin"),
            ("REPLYHOOK__REPLY__PATH", path),
        ];
        replyhook(&["check"], &env, "")
    };
    let (code, out, _) = check("ie1", "auto");
    assert!(code == 0 && out.contains("13803"), "{out}");
    for (region, path) in [("ie1", "rest"), ("us1", "auto")] {
        let (code, out, _) = check(region, path);
        assert!(code == 0 && !out.contains("13803"), "{out}");
    }
    let (code, _, err) = check("ie1", "twiml");
    assert!(code == 2 && err.contains("reply.path"), "{err}");
}
