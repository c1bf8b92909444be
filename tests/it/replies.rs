//! Conversion of replies into TwiML: escaping, invalid characters, splitting, media and redirects.

use replyhook::{Context, InboundMessage, Media, Reply, ReplyMessage};

use crate::support::{EMPTY, FakeTwilio, TestApp, Webhook, twiml_message};

#[tokio::test]
async fn threat_26_invalid_xml_chars_are_replaced_and_counted() {
    let app = TestApp::echo();
    assert_eq!(
        app.says(1, "a\0\u{b}\u{1f}b\u{FFFE}\u{FFFF}c").await,
        twiml_message("a\u{FFFD}\u{FFFD}\u{FFFD}b\u{FFFD}\u{FFFD}c")
    );
    assert_eq!(app.metric("replyhook_invalid_xml_chars_total").await, 5.0);
    assert_eq!(
        app.says(2, "a\r\nb\rc\td\u{85}\u{2028}").await,
        twiml_message("a&#13;\nb&#13;c\td\u{85}\u{2028}")
    );
}

// A text is the same whether it fits into TwiML or not.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_xml_chars_are_replaced_via_rest_too() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |_, _| {
            std::iter::repeat_n(ReplyMessage::text("a\0\u{1b}b\u{FFFF}\tc"), 11).collect::<Reply>()
        })
    });
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone("whatsapp:+15550001111", 11);
    let text = "a\u{FFFD}\u{FFFD}b\u{FFFD}\tc";
    assert!(
        phone.iter().all(|message| message.body == text),
        "{phone:?}"
    );
    assert_eq!(app.metric("replyhook_invalid_xml_chars_total").await, 33.0);
}

#[tokio::test]
async fn threat_27_markup_in_text_is_escaped() {
    let app = TestApp::echo();
    let attack = "</Message><Redirect>https://evil.example/</Redirect><!--&amp;<![CDATA[\"'";
    let answer = app.says(1, attack).await;
    assert_eq!(
        answer,
        twiml_message(
            "&lt;/Message&gt;&lt;Redirect&gt;https://evil.example/&lt;/Redirect&gt;&lt;!--&amp;amp;&lt;![CDATA[&quot;'"
        )
    );
}

#[tokio::test]
async fn threat_28_long_reply_is_split_or_sent_via_rest() {
    let app = TestApp::with(async |_, message: replyhook::InboundMessage| {
        "word ".repeat(message.body.parse().unwrap())
    });
    let ten = app.says(1, &(320 * 10).to_string()).await;
    assert_eq!(ten.matches("<Message>").count(), 10);
    assert_eq!(
        ten.replace("</Message><Message>", ""),
        twiml_message(&"word ".repeat(3200))
    );
    let eleven = app
        .send(Webhook::message(2, &(320 * 10 + 1).to_string()))
        .await;
    assert_eq!(eleven.twiml(), EMPTY);
    app.wait_for_outbox("pending", 11).await;
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="by_rest"}"#)
            .await,
        1.0
    );
}

#[tokio::test]
async fn long_reply_parts_are_numbered_if_configured() {
    let handler = |_cx: Context, message: InboundMessage| async move {
        "word ".repeat(message.body.parse().unwrap())
    };
    for (set, first) in [
        ("true", "<Message>(1/2) word "),
        ("false", "<Message>word "),
    ] {
        let env = [("REPLYHOOK__REPLY__NUMBERED", set)];
        let app = TestApp::build(&env, |builder| builder.handler(handler));
        assert!(app.says(1, "400").await.contains(first));
        assert!(app.says(2, "1").await.contains("<Message>word "));
    }
}

#[tokio::test]
async fn whatsapp_message_has_one_file_sms_several() {
    let app = TestApp::with(async |_, _| {
        ReplyMessage::text("two")
            .media(Media::url("https://cdn.example.com/a.png"))
            .media(Media::url("https://cdn.example.com/b.pdf"))
    });
    let whatsapp = app.says(1, "x").await;
    assert!(whatsapp.ends_with(
        "<Message><Body>two</Body><Media>https://cdn.example.com/a.png</Media></Message>\
         <Message><Media>https://cdn.example.com/b.pdf</Media></Message></Response>"
    ));
    let sms = Webhook::message(2, "x")
        .with("From", "+15550001111")
        .with("To", "+15550002222");
    assert!(app.send(sms).await.twiml().ends_with(
        "<Message><Body>two</Body><Media>https://cdn.example.com/a.png</Media>\
         <Media>https://cdn.example.com/b.pdf</Media></Message></Response>"
    ));
}

// A redirect to another server is sent to Twilio.
#[tokio::test]
async fn redirect_to_own_server_is_handler_failure() {
    let app =
        TestApp::with(async |_, message: replyhook::InboundMessage| Reply::redirect(message.body));
    app.send(Webhook::message(1, "https://hooks.example.test/webhook"))
        .await
        .assert_rejected(500);
    app.send(Webhook::message(2, "/relative"))
        .await
        .assert_rejected(500);
    let away = app
        .says(3, "https://webhooks.twilio.com/v1/Flows/FW1")
        .await;
    assert!(away.ends_with("<Response><Redirect method=\"POST\">https://webhooks.twilio.com/v1/Flows/FW1</Redirect></Response>"));
}

#[tokio::test]
async fn blank_reply_gives_empty_response() {
    for nothing in [Reply::none(), Reply::text("  "), Reply::text("").and("")] {
        let app = TestApp::with(move |_, _| std::future::ready(nothing.clone()));
        assert_eq!(app.says(1, "x").await, EMPTY);
    }
}
