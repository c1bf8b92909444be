//! The typing indicator: sent on WhatsApp and RCS, and never in the way of a reply.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use replyhook::{Context, Handler, HandlerError, InboundMessage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{ANA, BEN};
use crate::support::{
    ACCOUNT, Dev, HttpResponse, ScriptedServer, TOKEN, TestApp, Wait, Webhook, base64_of,
    twiml_message,
};

const PATH: &str = "/v2/Indicators/Typing.json";
const RCS_PATH: &str = "/v3/Indicators/Typing.json";
const AFTER: (&str, &str) = ("REPLYHOOK__REPLY__TYPING_AFTER_MS", "1");

async fn bot(cx: Context, message: InboundMessage) -> String {
    cx.typing().await;
    message.body
}

async fn twilio() -> ScriptedServer {
    let twilio = ScriptedServer::start().await;
    for path in [PATH, RCS_PATH] {
        twilio.queue_response(path, 200, "application/json", r#"{"success":true}"#);
    }
    twilio
}

/// Builds an app that calls `url` for typing indicators.
fn app(url: &str, env: &[(&str, &str)], handler: impl Handler) -> TestApp {
    let base_env = [("REPLYHOOK__TWILIO__MESSAGING_URL", url)];
    TestApp::build(&[&base_env[..], env].concat(), |app| app.handler(handler))
}

/// Creates a handler that echoes each text. Texts that begin with `slow` each need a permit.
fn echo_with_permits(go: &Arc<Semaphore>) -> impl Handler {
    let go = go.clone();
    move |_: Context, message: InboundMessage| {
        let go = go.clone();
        async move {
            if message.body.starts_with("slow") {
                go.acquire().await.unwrap().forget();
            }
            message.body
        }
    }
}

fn rcs(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .with("From", "rcs:+15550001111")
        .with("To", "rcs:bot_agent")
}

fn sms(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .with("From", &ANA[9..])
        .with("To", "+15550002222")
}

/// Sends a message, waits until `is_shown`, and lets its handler finish.
async fn release_when(
    app: &TestApp,
    webhook: Webhook,
    go: &Semaphore,
    is_shown: impl Fn() -> bool,
) -> HttpResponse {
    let shown = async {
        let wait = Wait::until("the indicator was sent");
        while !is_shown() {
            wait.pause().await;
        }
        go.add_permits(1);
    };
    tokio::join!(app.send(webhook), shown).0
}

fn count(twilio: &ScriptedServer) -> usize {
    twilio.requests().len()
}

#[tokio::test]
async fn typing_indicator_is_sent_for_whatsapp_and_rcs() {
    let twilio = twilio().await;
    let app = app(twilio.url(), &[], bot);
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let requests = twilio.requests();
    assert_eq!((requests.len(), requests[0].path.as_str()), (1, PATH));
    let sid = format!("SM{:032x}", 1);
    assert_eq!(requests[0].form.get("messageId"), Some(sid.as_str()));
    assert_eq!(requests[0].form.get("channel"), Some("whatsapp"));
    let login = base64_of(format!("{ACCOUNT}:{TOKEN}").as_bytes());
    assert_eq!(
        requests[0].headers["authorization"],
        format!("Basic {login}")
    );
    assert_eq!(app.send(rcs(2, "hi")).await.twiml(), twiml_message("hi"));
    let requests = twilio.requests();
    assert_eq!((requests.len(), requests[1].path.as_str()), (2, RCS_PATH));
    assert_eq!(requests[1].headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&requests[1].body).unwrap();
    let expected = json!({"channel": "RCS", "from": "rcs:bot_agent", "to": "rcs:+15550001111", "event": "START"});
    assert_eq!(body, expected);
    // SMS has no typing indicator.
    assert_eq!(app.send(sms(3, "hi")).await.twiml(), twiml_message("hi"));
    assert_eq!(count(&twilio), 2);
}

#[tokio::test]
async fn typing_indicator_failure_does_not_prevent_reply() {
    let twilio = ScriptedServer::start().await;
    twilio.queue_response(PATH, 500, "text/plain", "no");
    for url in [twilio.url(), "http://127.0.0.1:9"] {
        let app = app(url, &[], bot);
        assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
        let failed = app.metric(r#"replyhook_typing_indicators_total{outcome="failed"}"#);
        assert_eq!(failed.await, 1.0);
    }
    // A `Context` without a server, as in unit tests, sends no indicator.
    Context::new(1, replyhook::Timestamp::UNIX_EPOCH)
        .typing()
        .await;
}

#[tokio::test]
async fn slow_handler_gets_one_typing_indicator() {
    let (twilio, go) = (twilio().await, Arc::new(Semaphore::new(0)));
    let app = app(twilio.url(), &[AFTER], echo_with_permits(&go));
    let sent = r#"replyhook_typing_indicators_total{outcome="sent"}"#;
    for (number, webhook) in [(1, Webhook::message(1, "slow")), (2, rcs(2, "slow"))] {
        let release = async {
            app.wait_for(sent, f64::from(number)).await;
            go.add_permits(1);
        };
        let (reply, ()) = tokio::join!(app.send(webhook), release);
        assert_eq!(reply.twiml(), twiml_message("slow"));
    }
    let calls = twilio.requests().into_iter();
    let paths: Vec<_> = calls.map(|call| call.path).collect();
    assert_eq!(paths, [PATH, RCS_PATH]);
}

// The slow message comes later, so its indicator would follow those of the others.
#[tokio::test]
async fn fast_reply_gets_no_typing_indicator() {
    let (twilio, go) = (twilio().await, Arc::new(Semaphore::new(0)));
    let env = [("REPLYHOOK__REPLY__TYPING_AFTER_MS", "200")];
    let app = app(twilio.url(), &env, echo_with_permits(&go));
    for number in 1..=5 {
        assert_eq!(app.says(number, "fast").await, twiml_message("fast"));
    }
    let slow = Webhook::message(6, "slow");
    release_when(&app, slow, &go, || count(&twilio) > 0).await;
    let sids: Vec<_> = twilio
        .requests()
        .into_iter()
        .map(|call| call.form)
        .collect();
    assert_eq!(sids.len(), 1);
    assert_eq!(
        sids[0].get("messageId"),
        Some(format!("SM{:032x}", 6).as_str())
    );
}

// The SMS is older, so its indicator would be sent before that of the WhatsApp message.
#[tokio::test(flavor = "multi_thread")]
async fn slow_sms_gets_no_typing_indicator() {
    let (twilio, go) = (twilio().await, Arc::new(Semaphore::new(0)));
    let app = app(twilio.url(), &[AFTER], echo_with_permits(&go));
    let later = async {
        app.wait_for("replyhook_handlers_running", 1.0).await;
        let slow = Webhook::message(2, "slow").with("From", BEN);
        release_when(&app, slow, &go, || count(&twilio) > 0).await;
        go.add_permits(1);
    };
    let (reply, ()) = tokio::join!(app.send(sms(1, "slow")), later);
    assert_eq!(reply.twiml(), twiml_message("slow"));
    assert_eq!(count(&twilio), 1);
}

// Twilio's response never arrives: waiting for it would miss the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn slow_typing_call_does_not_delay_reply() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let go = Arc::new(Semaphore::new(0));
    let app = app(&url, &[AFTER], echo_with_permits(&go));
    let connected = async {
        let connection = listener.accept().await.unwrap();
        go.add_permits(1);
        connection
    };
    let (reply, _connection) = tokio::join!(app.send(Webhook::message(1, "slow")), connected);
    assert_eq!(reply.twiml(), twiml_message("slow"));
}

#[tokio::test]
async fn failing_typing_call_is_counted_and_reply_is_sent() {
    let twilio = ScriptedServer::start().await;
    twilio.queue_response(PATH, 500, "text/plain", "no");
    let go = Arc::new(Semaphore::new(0));
    let app = app(twilio.url(), &[AFTER], echo_with_permits(&go));
    let failed = r#"replyhook_typing_indicators_total{outcome="failed"}"#;
    let release = async {
        app.wait_for(failed, 1.0).await;
        go.add_permits(1);
    };
    let (reply, ()) = tokio::join!(app.send(Webhook::message(1, "slow")), release);
    assert_eq!(reply.twiml(), twiml_message("slow"));
    assert_eq!(count(&twilio), 1);
}

// The second attempt runs until the indicator of a later message was sent.
#[tokio::test(flavor = "multi_thread")]
async fn second_attempt_gets_no_second_typing_indicator() {
    let (twilio, go) = (twilio().await, Arc::new(Semaphore::new(0)));
    let permits = go.clone();
    let app = app(
        twilio.url(),
        &[AFTER],
        move |cx: Context, message: InboundMessage| {
            let go = permits.clone();
            async move {
                go.acquire().await.unwrap().forget();
                if cx.attempt() == 1 && message.body == "first" {
                    return Err(HandlerError::new("no"));
                }
                Ok(message.body)
            }
        },
    );
    let first = Webhook::message(1, "first");
    let failed = release_when(&app, first.clone(), &go, || count(&twilio) == 1).await;
    assert_eq!(failed.status, 500);
    let again = first
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://bot.example.test/webhook");
    let other = async {
        app.wait_for("replyhook_handlers_running", 1.0).await;
        let second = Webhook::message(2, "second").with("From", BEN);
        let release = async {
            app.wait_until(|| count(&twilio) == 2).await;
            go.add_permits(2);
        };
        tokio::join!(app.send(second), release);
    };
    let (reply, ()) = tokio::join!(app.send(again), other);
    assert_eq!(reply.twiml(), twiml_message("first"));
    let sids: Vec<_> = twilio
        .requests()
        .into_iter()
        .map(|call| call.form)
        .collect();
    let sids: Vec<_> = sids
        .iter()
        .map(|form| form.get("messageId").unwrap())
        .collect();
    assert_eq!(sids, [1, 2].map(|number| format!("SM{number:032x}")));
}

// The fallback text was the reply before the indicator was due. The later message's indicator follows that time.
#[tokio::test(flavor = "multi_thread")]
async fn message_with_fallback_text_gets_no_typing_indicator() {
    let (twilio, go) = (twilio().await, Arc::new(Semaphore::new(0)));
    let permits = go.clone();
    let env = [
        ("REPLYHOOK__REPLY__TYPING_AFTER_MS", "300"),
        ("REPLYHOOK__REPLY__DEADLINE_MS", "200"),
        ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry."),
    ];
    let handler = move |cx: Context, message: InboundMessage| {
        let go = permits.clone();
        async move {
            if cx.attempt() == 1 && message.body == "first" {
                return Err(HandlerError::new("no"));
            }
            go.acquire().await.unwrap().forget();
            Ok(message.body)
        }
    };
    let app = app(twilio.url(), &env, handler);
    let first = Webhook::message(1, "first");
    assert_eq!(app.send(first.clone()).await.status, 500);
    let call = first
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://bot.example.test/webhook");
    assert_eq!(app.send(call).await.twiml(), twiml_message("Sorry."));
    let second = Webhook::message(2, "second").with("From", BEN);
    release_when(&app, second, &go, || count(&twilio) > 0).await;
    go.add_permits(1);
    let calls = twilio.requests().into_iter();
    let sids: Vec<_> = calls
        .map(|call| call.form.get("messageId").unwrap().to_owned())
        .collect();
    assert_eq!(sids, [format!("SM{:032x}", 2)]);
}

/// Responds to each message when there is a permit.
async fn service(State(go): State<Arc<Semaphore>>) -> &'static str {
    go.acquire().await.unwrap().forget();
    "done"
}

// The emulator accepts the indicator, and the page shows it until the reply.
#[tokio::test(flavor = "multi_thread")]
async fn slow_forward_service_shows_typing_in_emulator() {
    let go = Arc::new(Semaphore::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/message", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/message", post(service))
        .with_state(go.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let secret = format!("whsec_{}", base64_of(&[7; 32]));
    let chat = move || {
        let env = [
            AFTER,
            ("REPLYHOOK__HANDLER__KIND", "forward"),
            ("REPLYHOOK__HANDLER__FORWARD_URL", &url),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", &secret),
        ];
        let dev = Dev::start_with(&[], &env);
        for user in [ANA, "rcs:+15550001111"] {
            let typing = |dev: &Dev| {
                let exchanges = dev.exchanges().into_iter();
                let calls = exchanges.filter(|exchange| {
                    let url = exchange["request"]["url"].as_str().unwrap_or_default();
                    url.contains("/Indicators/Typing.json")
                });
                calls.collect::<Vec<_>>()
            };
            let before = typing(&dev).len();
            let answer = std::thread::scope(|scope| {
                let answer = scope.spawn(|| dev.says(&json!({"from": user, "body": "hi"})));
                let wait = Wait::until("the indicator was sent");
                while typing(&dev).len() == before {
                    wait.check();
                    std::thread::sleep(Duration::from_millis(5));
                }
                go.add_permits(1);
                answer.join().unwrap()
            });
            assert_eq!(answer["messages"][0]["body"], "done", "{answer:#}");
            let calls = typing(&dev);
            assert_eq!(calls.len(), before + 1, "{calls:#?}");
            for call in calls {
                assert_eq!(call["response"]["status"], 200, "{call:#}");
            }
        }
    };
    tokio::task::spawn_blocking(chat).await.unwrap();
}
