//! The built-in handler `forward`: its requests to a service, and the meaning of the responses.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use replyhook::config::Sources;
use replyhook::emulator::EmulatorClient;
use replyhook::{App, DevServer, DevServerOptions};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    Description, Dev, ORIGIN, Program, RecordedRequest, ScriptedServer, TOKEN, installed,
    replyhook, report_skipped, root,
};

const KEY: [u8; 32] = [7; 32];

fn secret() -> String {
    format!("whsec_{}", STANDARD.encode(KEY))
}

/// A dev server that forwards messages to a scripted service.
struct Forwarding {
    dev_server: DevServer,
    remote: EmulatorClient,
    service: ScriptedServer,
}

impl Forwarding {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(env: &[(&str, &str)]) -> Self {
        let service = ScriptedServer::start().await;
        let url = format!("{}/message", service.url());
        let secret = secret();
        let base_env = [
            ("REPLYHOOK__HANDLER__KIND", "forward"),
            ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", secret.as_str()),
        ];
        let sources = Sources::default().with_env(base_env.into_iter().chain(env.iter().copied()));
        let mut options = DevServerOptions::default();
        options.emulator_port = Some(0);
        options.port = Some(0);
        let dev_server = DevServer::start(App::builder(), sources, options)
            .await
            .unwrap();
        let remote = EmulatorClient::new(dev_server.emulator().url()).unwrap();
        Self {
            dev_server,
            remote,
            service,
        }
    }

    fn queue_response(&self, status: u16, content_type: &str, body: &str) {
        self.service
            .queue_response("/message", status, content_type, body);
    }

    async fn says(&self, message: Value) -> Value {
        let mut all = json!({"from": "whatsapp:+15550001111", "to": "whatsapp:+14155238886"});
        for (name, value) in message.as_object().unwrap() {
            all[name] = value.clone();
        }
        self.remote.post(&["messages"], &all).await.unwrap()
    }

    fn last_request(&self) -> RecordedRequest {
        let request = self.service.requests().pop().unwrap();
        let body = serde_json::from_slice(&request.body).unwrap();
        Description::current().check_webhook("message", &body);
        request
    }
}

/// Returns text and number of files of each reply message, and the status of each webhook attempt.
fn outcome(answer: &Value) -> (Vec<(String, usize)>, Vec<u64>) {
    let messages = answer["messages"].as_array().unwrap().iter();
    let attempts = answer["attempts"].as_array().unwrap().iter();
    let message = |message: &Value| {
        let body = message["body"].as_str().unwrap().to_owned();
        (body, message["media"].as_array().unwrap().len())
    };
    (
        messages.map(message).collect(),
        attempts
            .map(|attempt| attempt["status"].as_u64().unwrap())
            .collect(),
    )
}

#[tokio::test]
async fn forward_request_has_full_message_and_signature() {
    let bot = Forwarding::new().await;
    bot.queue_response(204, "", "");
    let answer = bot
        .says(json!({
            "body": "", "profile_name": "Ana",
            "location": {"latitude": 52.52, "longitude": 13.405, "address": "1 Street", "label": "Office"},
            "params": {
                "OriginalRepliedMessageSid": format!("SM{:032}", 7),
                "OriginalRepliedMessageSender": "whatsapp:+14155238886",
                "ReferralHeadline": "Buy", "ReferralSourceType": "ad", "ReferralCtwaClid": "click",
                "ParentExternalUserId": "whatsapp:US.ENT.118157", "MessageType": "location",
            },
        }))
        .await;
    assert_eq!(outcome(&answer), (vec![], vec![200]));
    let request = bot.last_request();
    assert_eq!(request.method, "POST");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["replyhook-attempt"], "1");
    let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    assert_eq!(id, answer["message_sid"].as_str().unwrap());
    let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), expected);

    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let mut keys: Vec<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let mut promised = [
        "message_sid",
        "account_sid",
        "messaging_service_sid",
        "from",
        "to",
        "channel",
        "profile_name",
        "external_user_id",
        "parent_external_user_id",
        "message_type",
        "body",
        "media",
        "location",
        "button",
        "choice",
        "flow",
        "referral",
        "replied_to",
        "opt_out",
        "received_at",
        "attempt",
        "params",
    ];
    promised.sort_unstable();
    assert_eq!(keys, promised);
    for (name, value) in [
        ("message_sid", json!(id)),
        ("messaging_service_sid", Value::Null),
        ("from", json!("whatsapp:+15550001111")),
        ("channel", json!("whatsapp")),
        ("profile_name", json!("Ana")),
        ("body", json!("")),
        ("media", json!([])),
        ("button", Value::Null),
        ("choice", Value::Null),
        ("flow", Value::Null),
        ("parent_external_user_id", json!("whatsapp:US.ENT.118157")),
        ("message_type", json!("location")),
        ("opt_out", Value::Null),
        ("attempt", json!(1)),
        (
            "location",
            json!({"latitude": 52.52, "longitude": 13.405, "address": "1 Street", "label": "Office"}),
        ),
        (
            "replied_to",
            json!({"message_sid": format!("SM{:032}", 7), "from": "whatsapp:+14155238886"}),
        ),
        (
            "referral",
            json!({
                "headline": "Buy", "body": null, "source_id": null, "source_type": "ad", "source_url": null,
                "media_url": null, "ctwa_clid": "click",
            }),
        ),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    let received = body["received_at"].as_str().unwrap();
    assert!(
        received.len() == 20 && received.ends_with('Z'),
        "{received}"
    );
    let params = body["params"].as_array().unwrap();
    assert!(params.contains(&json!(["MessageSid", id])), "{params:?}");

    bot.says(json!({"button": {"text": "Yes", "payload": "y"}, "media": [{"data": "aGk=", "content_type": "text/csv"}]}))
        .await;
    let body: Value = serde_json::from_slice(&bot.last_request().body).unwrap();
    assert_eq!(
        body["button"],
        json!({"text": "Yes", "payload": "y", "type": "REPLY"})
    );
    assert_eq!(
        body["choice"],
        json!({"id": "y", "title": "Yes", "via": "button", "key": null, "current": true})
    );
    assert_eq!(body["media"][0]["content_type"], "text/csv");
    let link = body["media"][0]["link"].as_str().unwrap();
    let begin = format!("{}/media/", bot.dev_server.server_url().unwrap());
    assert!(link.starts_with(&begin), "{link}");
    bot.dev_server.stop().await;
}

// Answers to a list and to a WhatsApp Flow; of a list choice Twilio may send only the title.
#[tokio::test]
async fn forward_request_has_choice_and_flow_fields() {
    let bot = Forwarding::new().await;
    for (params, field, expected) in [
        (
            json!({"ListId": "p1", "ListTitle": "Pizza"}),
            "choice",
            json!({"id": "p1", "title": "Pizza", "via": "list", "key": null, "current": true}),
        ),
        (
            json!({"ListTitle": "Pizza"}),
            "choice",
            json!({"id": "Pizza", "title": "Pizza", "via": "list", "key": null, "current": true}),
        ),
        (
            json!({"FlowData": r#"{"guests":2,"name":"Ana"}"#}),
            "flow",
            json!({"guests": 2, "name": "Ana"}),
        ),
        (json!({"FlowData": "not JSON"}), "flow", Value::Null),
    ] {
        bot.queue_response(204, "", "");
        bot.says(json!({"body": "x", "params": params})).await;
        let body: Value = serde_json::from_slice(&bot.last_request().body).unwrap();
        assert_eq!(body[field], expected, "{params}");
    }
    bot.dev_server.stop().await;
}

#[tokio::test]
async fn valid_service_response_becomes_reply() {
    let bot = Forwarding::new().await;
    let text = |text: &str| (text.to_owned(), 0);
    for (status, content_type, body, got) in [
        (204, "", "", vec![]),
        (200, "", "", vec![]),
        (200, "application/json", "\n", vec![]),
        (202, "", "", vec![]),
        (202, "text/html", "not read", vec![]),
        (200, "application/json", "null", vec![]),
        (200, "application/json", "{}", vec![]),
        (
            200,
            "application/json",
            r#"{"body":null,"media":null}"#,
            vec![],
        ),
        (
            200,
            "application/json",
            r#"{"message":"Workflow was started"}"#,
            vec![],
        ),
        (
            200,
            "application/json",
            r#"{"text":"hi","code":0,"meta":{},"messageId":1}"#,
            vec![],
        ),
        (
            200,
            "application/json",
            r#"{"body":"x \ud83d y"}"#,
            vec![text("x \u{FFFD} y")],
        ),
        (
            200,
            "application/json",
            r#"{"messages":[{"body":"\ud83d\udc4d \ude00"}]}"#,
            vec![text("👍 \u{FFFD}")],
        ),
        (
            200,
            "text/plain; charset=utf-8",
            "Hello & <you>",
            vec![text("Hello & <you>")],
        ),
        (
            200,
            "application/json",
            r#"{"body":"one"}"#,
            vec![text("one")],
        ),
        (
            200,
            "Application/JSON; charset=utf-8",
            r#"{"body":"one","more":1,"media":null,"messages":null}"#,
            vec![text("one")],
        ),
        (
            200,
            "application/json",
            r#"{"body":"one","media":["https://cdn.example.test/a.png"]}"#,
            vec![("one".to_owned(), 1)],
        ),
        (
            200,
            "application/json",
            r#"{"media":["https://cdn.example.test/a.png"]}"#,
            vec![(String::new(), 1)],
        ),
        (200, "application/json", r#"{"messages":[]}"#, vec![]),
        (
            200,
            "application/json",
            r#"{"body":"","messages":[{"body":"a"},{"body":"b","media":["https://cdn.example.test/a.png"]}]}"#,
            vec![text("a"), ("b".to_owned(), 1)],
        ),
    ] {
        bot.service.clear_responses("/message");
        bot.queue_response(status, content_type, body);
        // Another text each time: the guard blocks repetitions.
        let number = bot.service.requests().len();
        let text = format!("number {number}");
        let answer = bot.says(json!({ "body": text })).await;
        assert_eq!(
            outcome(&answer),
            (got, vec![200]),
            "{status} {content_type} {body}"
        );
    }
    bot.dev_server.stop().await;
}

#[tokio::test]
async fn invalid_service_response_fails_and_fallback_retries_once() {
    let bot = Forwarding::new().await;
    let large = format!("{{\"body\":\"{}\"}}", "x".repeat(1_100_000));
    let large = large.as_str();
    for (status, content_type, body) in [
        (200, "text/html", "<p>hi</p>"),
        (200, "", "hi"),
        (200, "application/json", "not json"),
        (200, "application/json", r#"{"mesage":"hi"}"#),
        (200, "application/json", r#"{"ok":true,"medai":[]}"#),
        (200, "application/json", r#"{"Body":"hi"}"#),
        (200, "application/json", r#"[{"body":"hi"}]"#),
        (200, "application/json", "1"),
        (200, "application/json", r#"{"messages":[{"text":"hi"}]}"#),
        (
            200,
            "application/json",
            r#"{"messages":[{"body":"hi"},{"body":null}]}"#,
        ),
        (
            200,
            "application/json",
            r#"{"body":"hi","messages":[{"body":"ho"}]}"#,
        ),
        (
            200,
            "application/json",
            r#"{"body":"hi","media":"https://cdn.example.test/a.png"}"#,
        ),
        (
            200,
            "application/json",
            r#"{"messages":[{"media":["file:///etc/passwd"]}]}"#,
        ),
        (200, "application/json", large),
        (201, "text/plain", "hi"),
        (302, "", ""),
        (304, "", ""),
        (400, "text/plain", "hi"),
        (500, "application/json", r#"{"body":"hi"}"#),
    ] {
        bot.service.clear_responses("/message");
        bot.queue_response(status, content_type, body);
        bot.queue_response(200, "text/plain", "second time");
        let before = bot.service.requests().len();
        let answer = bot.says(json!({"body": format!("number {before}")})).await;
        let expected = (vec![("second time".to_owned(), 0)], vec![500, 200]);
        assert_eq!(
            outcome(&answer),
            expected,
            "{status} {content_type} {body:.40}"
        );
        let requests = bot.service.requests();
        assert_eq!(requests.len(), before + 2, "forward must not retry");
        assert_eq!(requests[before + 1].headers["replyhook-attempt"], "2");
        let body: Value = serde_json::from_slice(&requests[before + 1].body).unwrap();
        assert_eq!(body["attempt"], 2);
    }
    bot.dev_server.stop().await;
}

#[tokio::test]
async fn slow_service_response_is_sent_via_rest() {
    let env = [("REPLYHOOK__REPLY__DEADLINE_MS", "200")];
    let bot = Forwarding::with(&env).await;
    bot.queue_response(200, "text/plain", "at last");
    // Longer than a request may wait for the store.
    let slow = json!({"handler_ms": 3000});
    bot.remote.put(&["faults"], &slow).await.unwrap();
    let answer = bot.says(json!({"body": "hi"})).await;
    assert_eq!(outcome(&answer), (vec![], vec![200]));
    let late_reply = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let shown = bot
                .remote
                .get(&["conversations", "whatsapp:+15550001111"])
                .await
                .unwrap();
            if shown
                .as_array()
                .unwrap()
                .iter()
                .any(|message| message["body"] == "at last")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    late_reply.await.expect("no late reply");
    bot.dev_server.stop().await;
}

#[test]
fn invalid_forward_settings_are_rejected_with_fix() {
    let needed = [
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("PUBLIC_URL", ORIGIN),
        ("REPLYHOOK__HANDLER__KIND", "forward"),
    ];
    let problems = |more: &[(&str, &str)]| {
        let env = [&needed[..], more].concat();
        let (code, out, err) = replyhook(&["check"], &env, "");
        assert_ne!(code, 0, "{out}");
        out + &err
    };
    let problem = problems(&[]);
    assert!(
        problem.contains("handler.forward_url") && problem.contains("openssl rand -base64 32"),
        "{problem}"
    );
    let url = (
        "REPLYHOOK__HANDLER__FORWARD_URL",
        "http://localhost:3000/message",
    );
    let short = ("REPLYHOOK__HANDLER__FORWARD_SECRET", "whsec_c2hvcnQ=");
    let problem = problems(&[url, short]);
    assert!(
        problem.contains("24 to 64 bytes") && !problem.contains("c2hvcnQ"),
        "{problem}"
    );
    let good = secret();
    let good = ("REPLYHOOK__HANDLER__FORWARD_SECRET", good.as_str());
    let problem = problems(&[("REPLYHOOK__HANDLER__FORWARD_URL", "localhost:3000"), good]);
    assert!(
        problem.contains("http://localhost:3000/message"),
        "{problem}"
    );
    let env = [&needed[..], &[url, good]].concat();
    let (code, out, _) = replyhook(&["check"], &env, "");
    assert_eq!(code, 0, "{out}");
    assert!(!out.contains("whsec_"), "{out}");
}

/// Checks that an example's bot verifies and replies to messages of the real server.
fn check_bot(command: &mut Command) {
    let bot = Program::start(command.arg("0").env("FORWARD_SECRET", secret()));
    let port = bot.wait_for("port", |line| {
        Some(line.strip_prefix("listening on ")?.to_owned())
    });
    let url = format!("http://127.0.0.1:{port}/message");
    let start_dev = |secret: &str| {
        let env = [
            ("REPLYHOOK__HANDLER__KIND", "forward"),
            ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", secret),
        ];
        Dev::start_with(&["--port", "0"], &env)
    };
    let send = |dev: &Dev, more: Value| {
        let mut message = json!({"from": "whatsapp:+15550001111", "profile_name": "Ana"});
        for (name, value) in more.as_object().unwrap() {
            message[name] = value.clone();
        }
        dev.says(&message)
    };
    let dev = start_dev(&secret());
    let answer = send(&dev, json!({"body": "Olá 👍 & <b>"}));
    let expected = "Hello Ana, you said: Olá 👍 & <b>";
    assert_eq!(answer["messages"][0]["body"], expected, "{}", bot.output());
    let office = json!({"location": {"latitude": 52.52, "longitude": 13.405, "label": "Office"}});
    let answer = send(&dev, office);
    assert_eq!(
        answer["messages"][0]["body"],
        "Hello Ana, you are at Office."
    );
    let field = json!({"location": {"latitude": 52.5, "longitude": -13.405}});
    let answer = send(&dev, field);
    assert_eq!(
        answer["messages"][0]["body"],
        "Hello Ana, you are at 52.5, -13.405."
    );
    let other_dev = start_dev(&format!("whsec_{}", STANDARD.encode([8; 32])));
    let answer = send(&other_dev, json!({"body": "hi"}));
    assert_eq!(
        outcome(&answer),
        (vec![], vec![500, 200]),
        "another secret is rejected"
    );
}

#[test]
fn python_example_verifies_and_replies() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the example of forward in Python");
    };
    check_bot(Command::new(python).arg(root().join("examples/forward/bot.py")));
}

#[test]
fn go_example_verifies_and_replies() {
    let Some(bot) = installed("REPLYHOOK_TEST_GO_BOT") else {
        return report_skipped("the example of forward in Go");
    };
    check_bot(&mut Command::new(bot));
}

#[test]
fn node_example_verifies_and_replies() {
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        return report_skipped("the example of forward in Node");
    };
    check_bot(
        Command::new("node")
            .arg(root().join("examples/forward/bot.mjs"))
            .env("NODE_PATH", modules),
    );
}

#[tokio::test]
async fn service_hands_conversation_off_silently_or_to_url() {
    let bot = Forwarding::new().await;
    bot.queue_response(
        200,
        "application/json",
        r#"{"body": "A colleague will answer.", "handoff": {"url": null, "ttl": "12h"}}"#,
    );
    let answer = bot.says(json!({"body": "human"})).await;
    assert_eq!(
        outcome(&answer).0,
        [("A colleague will answer.".to_owned(), 0)]
    );
    let requests = bot.service.requests().len();
    let answer = bot.says(json!({"body": "hello?"})).await;
    assert_eq!(outcome(&answer), (vec![], vec![200]));
    assert_eq!(bot.service.requests().len(), requests, "the bot is silent");
    let shown = bot.remote.get(&["state", "whatsapp:+15550001111"]).await;
    let handed_off_to = shown.unwrap()["handed_off_to"].as_str().unwrap().to_owned();
    assert!(handed_off_to.contains("silent"), "{handed_off_to}");

    bot.service.clear_responses("/message");
    // Another user. The URL redirects this message and the next one, and unknown keys are ignored.
    let from_ben = |body: &str| json!({"from": "whatsapp:+15550009999", "body": body});
    let flow = ScriptedServer::start().await;
    flow.queue_twiml("/flow", "<Message>A person.</Message>");
    let response =
        json!({"messages": [], "handoff": {"url": format!("{}/flow", flow.url()), "tll": "1h"}});
    bot.queue_response(200, "application/json", &response.to_string());
    for text in ["human", "hello?"] {
        let answer = bot.says(from_ben(text)).await;
        assert_eq!(outcome(&answer).0, [("A person.".to_owned(), 0)], "{text}");
    }
    assert_eq!(flow.requests_to("/flow").len(), 2);
}

// The text reaches the user. Alone, an invalid handoff is a failure, because silence would hide it.
#[tokio::test]
async fn invalid_handoff_is_left_out_or_fails() {
    let bot = Forwarding::new().await;
    for handoff in [
        r#"{"url": "/flow"}"#,
        r#"{"ttl": "24"}"#,
        r#"{"ttl": "721h"}"#,
        r#"{"url": 5}"#,
        r#""x""#,
    ] {
        let body = format!(r#"{{"body": "hi", "handoff": {handoff}}}"#);
        bot.queue_response(200, "application/json", &body);
        let answer = bot.says(json!({"body": "human"})).await;
        assert_eq!(outcome(&answer).0, [("hi".to_owned(), 0)], "{handoff}");
        bot.service.clear_responses("/message");
        let body = format!(r#"{{"handoff": {handoff}}}"#);
        bot.queue_response(200, "application/json", &body);
        let answer = bot.says(json!({"body": "human"})).await;
        assert_eq!(outcome(&answer).1[0], 500, "{handoff}");
        bot.service.clear_responses("/message");
    }
}
