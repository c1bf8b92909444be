//! The limit `reply.max_messages`: it cuts the replies of every handler, on both reply paths.

use std::fmt::Write as _;

use replyhook::{InboundMessage, Reply};

use crate::support::twilio::SentVia;
use crate::support::{EMPTY, FakeTwilio, RawServer, Server, TestApp, Webhook};

const USER: &str = "whatsapp:+15550001111";
const TRUNCATED: &str = "replyhook_replies_truncated_total";
const MAX_THREE_MESSAGES: (&str, &str) = ("REPLYHOOK__REPLY__MAX_MESSAGES", "3");

/// Texts of the messages in a TwiML response.
fn texts(twiml: &str) -> Vec<&str> {
    let messages = twiml.split("<Message>").skip(1);
    messages
        .map(|message| message.split("</Message>").next().unwrap())
        .collect()
}

fn megabyte() -> String {
    let mut text = String::new();
    for number in 0..140_000 {
        let _ = write!(text, "{number:06} ");
    }
    text + "end"
}

// The handler returns one megabyte of text.
#[tokio::test(flavor = "multi_thread")]
async fn huge_reply_is_cut_to_twenty_rest_messages() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |_, _: InboundMessage| megabyte())
    });
    assert_eq!(app.says(1, "hi").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 20);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 20);
    let units = |text: &str| text.encode_utf16().count();
    assert!(
        phone
            .iter()
            .all(|message| units(&message.body) <= 1600 && message.via == SentVia::Rest)
    );
    assert!(
        phone[..19]
            .iter()
            .all(|message| !message.body.contains('…'))
    );
    let text: String = phone.iter().map(|message| message.body.as_str()).collect();
    let text = text.strip_suffix('…').unwrap();
    assert!(megabyte().starts_with(text) && text.len() > 19 * 1500);
    assert_eq!(app.metric(TRUNCATED).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_by_twiml_is_cut_like_one_via_rest() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[MAX_THREE_MESSAGES], |app| {
        app.handler(
            async |_, message: InboundMessage| match message.body.as_str() {
                "texts" => Reply::text("one").and("two").and("three").and("four"),
                "fits" => Reply::text("one").and("two").and("three"),
                "numbered" => Reply::text("word ".repeat(2000)).numbered(),
                _ => Reply::text("word ".repeat(2000)),
            },
        )
    });
    let answer = app.says(1, "texts").await;
    assert_eq!(texts(&answer), ["one", "two", "three…"]);
    let answer = app.says(2, "long").await;
    let long = texts(&answer);
    assert_eq!(long.len(), 3);
    assert!(long[2].ends_with("word…") && !long[1].contains('…'));
    let answer = app.says(3, "numbered").await;
    let numbered = texts(&answer);
    assert_eq!(numbered.len(), 3);
    assert!(numbered[0].starts_with("(1/3) word") && numbered[2].starts_with("(3/3) word"));
    assert!(numbered[2].ends_with("word…"));
    assert_eq!(app.metric(TRUNCATED).await, 3.0);
    let answer = app.says(4, "fits").await;
    assert_eq!(texts(&answer), ["one", "two", "three"]);
    assert_eq!(app.metric(TRUNCATED).await, 3.0);
}

#[test]
fn echo_is_cut_and_logged_once() {
    let server = Server::start(&[MAX_THREE_MESSAGES]);
    let answer = server.send(&Webhook::message(1, &"echo ".repeat(2000)));
    let texts_sent = texts(answer.twiml());
    assert_eq!(texts_sent.len(), 3);
    assert!(texts_sent[0].starts_with("echo echo") && texts_sent[2].ends_with("echo…"));
    let line = server.wait_for("has more messages than reply.max_messages");
    assert!(line.contains(&format!("SM{:032x}", 1)), "{line}");
    assert!(
        line.contains(r#""level":"WARN""#) && !line.contains("echo"),
        "{line}"
    );
    assert_eq!(server.metric(TRUNCATED), 1.0);
    let answer = server.send(&Webhook::message(1, &"echo ".repeat(2000)));
    assert_eq!(texts(answer.twiml()), texts_sent);
    let lines = server.log();
    assert_eq!(
        lines
            .matches("has more messages than reply.max_messages")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_of_service_is_cut() {
    let service = RawServer::start().await;
    let text = "said ".repeat(4000);
    service.queue_response(
        "POST /bot",
        200,
        &[("content-type", "text/plain")],
        text.as_bytes(),
    );
    let url = format!("{}/bot", service.url());
    let env = [
        MAX_THREE_MESSAGES,
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        ),
    ];
    let app = TestApp::build(&env, |app| app);
    let answer = app.says(1, "hi").await;
    assert_eq!(texts(&answer).len(), 3);
    assert!(texts(&answer)[2].ends_with("said…"));
}

#[cfg(feature = "rules")]
#[tokio::test(flavor = "multi_thread")]
async fn reply_of_rules_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let rules = format!(
        "[[rule]]\nwhen.text = [\"hi\"]\nreply = {:?}\n",
        "rule ".repeat(2000)
    );
    std::fs::write(&file, rules).unwrap();
    let name = file.display().to_string();
    let env = [
        MAX_THREE_MESSAGES,
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", name.as_str()),
    ];
    let app = TestApp::build(&env, |app| app);
    let answer = app.says(1, "hi").await;
    assert_eq!(texts(&answer).len(), 3);
    assert!(texts(&answer)[2].ends_with("rule…"));
}
