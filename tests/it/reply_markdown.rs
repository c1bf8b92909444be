//! Markdown in replies: the setting `reply.markdown`, the methods and the filter of rules, on both reply paths.

use replyhook::{InboundMessage, Reply, ReplyMessage};

use crate::support::{
    FakeTwilio, ORIGIN, RawServer, TOKEN, TestApp, Webhook, replyhook, twiml_message,
};

const CONVERT: (&str, &str) = ("REPLYHOOK__REPLY__MARKDOWN", "convert");
const MARKDOWN: &str = "# Menu\n**Soup** or _tea_, [here](https://h.test/a_b)";
const MARKED: &str = "*Menu*\n*Soup* or _tea_, here (https://h.test/a_b)";
const UNMARKED: &str = "Menu\nSoup or tea, here (https://h.test/a_b)";

/// Sends a message on a channel, and returns the reply.
async fn reply_on(app: &TestApp, number: u64, channel: &str) -> String {
    let webhook = Webhook::message(number, "hi")
        .with("From", &format!("{channel}+15550001111"))
        .with("To", &format!("{channel}+15550002222"));
    app.send(webhook).await.twiml().to_owned()
}

#[tokio::test]
async fn setting_converts_replies_of_rust_handlers() {
    let app = TestApp::build(&[CONVERT], |app| app.handler(async |_, _| MARKDOWN));
    for (number, channel, expected) in [
        (1, "whatsapp:", MARKED),
        (2, "", UNMARKED),
        (3, "rcs:", UNMARKED),
        (4, "messenger:", UNMARKED),
    ] {
        let reply = reply_on(&app, number, channel).await;
        assert_eq!(reply, twiml_message(expected), "{channel}");
    }
    let app = TestApp::with(async |_, _| MARKDOWN);
    assert_eq!(
        reply_on(&app, 1, "whatsapp:").await,
        twiml_message(MARKDOWN)
    );
}

// Each message by itself, and once although the setting converts it too.
#[tokio::test]
async fn method_converts_single_messages_once() {
    let handler = async |_, message: InboundMessage| match message.body.as_str() {
        "all" => Reply::text("*a*").and("**b**").markdown(),
        _ => Reply::text("*a*").and(ReplyMessage::text("**b**").markdown()),
    };
    let app = TestApp::with(handler);
    let messages = |texts: [&str; 2]| twiml_message(&texts.join("</Message><Message>"));
    assert_eq!(app.says(1, "all").await, messages(["_a_", "*b*"]));
    assert_eq!(app.says(2, "one").await, messages(["*a*", "*b*"]));
    let app = TestApp::build(&[CONVERT], |app| app.handler(handler));
    assert_eq!(app.says(1, "one").await, messages(["_a_", "*b*"]));
}

// A reply of eleven messages, which is split after it is converted.
#[tokio::test(flavor = "multi_thread")]
async fn reply_via_rest_is_converted() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[CONVERT], |app| {
        app.handler(async |_, _| {
            std::iter::repeat_n(ReplyMessage::text("**one** two"), 11).collect::<Reply>()
        })
    });
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone("whatsapp:+15550001111", 11);
    assert!(phone.iter().all(|message| message.body == "*one* two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_converts_replies_of_service() {
    let service = RawServer::start().await;
    let body = serde_json::json!({ "body": MARKDOWN }).to_string();
    let headers = [("content-type", "application/json")];
    service.queue_response("POST /bot", 200, &headers, body.as_bytes());
    let url = format!("{}/bot", service.url());
    let env = [
        CONVERT,
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        ),
    ];
    let app = TestApp::build(&env, |app| app);
    assert_eq!(app.says(1, "hi").await, twiml_message(MARKED));
}

#[cfg(feature = "rules")]
#[tokio::test(flavor = "multi_thread")]
async fn filter_and_setting_convert_replies_of_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let rules = "[vars]\nmenu = \"**Soup**\"\n[otherwise]\nreply = \"*a* {{ menu | markdown }}\"\n";
    std::fs::write(&file, rules).unwrap();
    let name = file.display().to_string();
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", name.as_str()),
    ];
    let app = TestApp::build(&env, |app| app);
    assert_eq!(
        reply_on(&app, 1, "whatsapp:").await,
        twiml_message("*a* *Soup*")
    );
    assert_eq!(reply_on(&app, 2, "").await, twiml_message("*a* Soup"));
    std::fs::write(&file, rules.replace(" | markdown", "")).unwrap();
    let app = TestApp::build(&[&[CONVERT][..], &env].concat(), |app| app);
    assert_eq!(
        reply_on(&app, 1, "whatsapp:").await,
        twiml_message("_a_ *Soup*")
    );
}

#[test]
fn unknown_markdown_setting_names_the_choices() {
    let env = [
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("PUBLIC_URL", ORIGIN),
        ("REPLYHOOK__REPLY__MARKDOWN", "html"),
    ];
    let (code, out, err) = replyhook(&["check"], &env, "");
    assert_eq!(code, 2, "{out}{err}");
    let text = out + &err;
    assert!(
        text.contains("MARKDOWN") && text.contains("keep") && text.contains("convert"),
        "{text}"
    );
}
