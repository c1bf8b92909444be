//! Delivery of questions: content resources, and the text that replaces them after a failure.

use replyhook::{Context, InboundMessage, Reply, ReplyMessage};

use rustix::process::Signal;

use crate::support::{
    ContentFault, EMPTY, FakeTwilio, Fault, Server, TempStore, TestApp, Webhook, twiml_message,
};

const USER: &str = "whatsapp:+15550001111";
const TEXT: &str = "Really?\n1. Yes\n2. No";

fn question(message: &InboundMessage) -> Reply {
    let reply = Reply::text("Really?").choices(["Yes", "No"]);
    if message.body == "two" {
        Reply::text("First.")
            .and(reply.messages()[0].clone())
            .and("Last.")
    } else {
        reply
    }
}

fn app(twilio: &FakeTwilio) -> TestApp {
    TestApp::with_twilio(twilio, &[], |app| {
        app.handler(|_cx: Context, message: InboundMessage| std::future::ready(question(&message)))
    })
}

// Two questions of one shape use one resource, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn resource_of_a_shape_is_made_once() {
    let twilio = FakeTwilio::start();
    let first = app(&twilio);
    assert_eq!(first.says(1, "hi").await, EMPTY);
    twilio.wait_for_phone(USER, 1);
    first.says(2, "hi").await;
    twilio.wait_for_phone(USER, 2);
    let made = ["GET", "POST replyhook buttons-2 v1"];
    assert_eq!(twilio.content_calls(), made);
    first.shut_down().await;
    let second = app(&twilio);
    second.says(3, "hi").await;
    let phone = twilio.wait_for_phone(USER, 3);
    assert!(phone.iter().all(|message| message.content.is_some()));
    assert_eq!(twilio.content_calls(), [&made[..], &["GET"]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn order_of_rich_and_plain_messages_is_kept() {
    let twilio = FakeTwilio::start();
    let app = app(&twilio);
    assert_eq!(app.says(1, "two").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 3);
    let bodies: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["First.", "Really?", "Last."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_that_is_gone_is_made_again() {
    let twilio = FakeTwilio::start();
    let app = app(&twilio);
    app.says(1, "hi").await;
    twilio.wait_for_phone(USER, 1);
    twilio.delete_content();
    app.says(2, "hi").await;
    let phone = twilio.wait_for_phone(USER, 2);
    assert!(phone[1].content.is_some());
    let posts = twilio
        .content_calls()
        .into_iter()
        .filter(|call| call.starts_with("POST"));
    assert_eq!(posts.count(), 2);
}

// Each new resource is gone too, so the text is sent.
#[tokio::test(flavor = "multi_thread")]
async fn resource_that_stays_gone_is_sent_as_text() {
    let twilio = FakeTwilio::start();
    let gone = Fault::Status {
        status: 400,
        code: Some(21655),
        retry_after: None,
    };
    twilio.fault(gone, 2);
    let app = app(&twilio);
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!((phone[0].body.as_str(), &phone[0].content), (TEXT, &None));
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 3);
}

// With `kill -9` of the program while the Content API keeps it waiting. No call has sent the message then.
#[test]
fn kill_during_content_call_sends_message_after_restart() {
    for (content, is_question) in [
        ("choices = ['1 person', '3 people']", true),
        (
            "content = { name = 'receipt', language = 'en', variables = { 1 = 'Ana' } }",
            false,
        ),
    ] {
        let twilio = FakeTwilio::start();
        twilio.add_template("receipt", "en", "twilio/quick-reply", "approved");
        let store = TempStore::with(&twilio);
        let rules = store.path().with_file_name("bot.toml");
        let text = if is_question {
            "reply.text = 'How many?'\n"
        } else {
            ""
        };
        let text = format!(
            "[[rule]]\nwhen.choice = true\nreply = '{{{{ choice.title }}}} by {{{{ choice.via }}}}'\n[otherwise]\n{text}reply.{content}\n"
        );
        std::fs::write(&rules, text).unwrap();
        let api = twilio.url();
        let env = [
            ("REPLYHOOK__HANDLER__KIND", "rules"),
            ("REPLYHOOK__HANDLER__RULES", rules.to_str().unwrap()),
            ("REPLYHOOK__TWILIO__CONTENT_URL", api.as_str()),
        ];
        let server = store.server_with(&env);
        twilio.content_fault(ContentFault::Hang, 1);
        assert_eq!(server.send(&Webhook::message(1, "hi")).twiml(), EMPTY);
        twilio.wait_for_content_fault();
        server.signal(Signal::KILL);
        server.wait();
        let server = store.server_with(&env);
        let phone = twilio.wait_for_phone(USER, 1);
        assert!(phone[0].content.is_some(), "{content}");
        server.wait_until(r#"replyhook_replies_total{outcome="sent"}"#, 1.0);
        if is_question {
            let answer = server.send(&Webhook::message(2, "3 people"));
            assert_eq!(answer.twiml(), twiml_message("3 people by text"));
        }
        assert_eq!(twilio.posts().len(), 1, "{content}");
    }
}

// Where the numbered text replaced the buttons, the user has seen numbers: "2" is the second choice, whatever the titles.
#[tokio::test(flavor = "multi_thread")]
async fn typed_number_is_a_position_after_buttons_failed() {
    let asks = |app: replyhook::AppBuilder| {
        app.handler(|_cx: Context, message: InboundMessage| {
            std::future::ready(match message.choice() {
                Some(chosen) => Reply::text(format!("{} by {}", chosen.id, chosen.via.as_str())),
                None if message.body == "hi" => {
                    Reply::text("How many?").choices(["1 person", "3 people", "4 people"])
                }
                None => Reply::text("What?"),
            })
        })
    };
    let rejected = Fault::Status {
        status: 400,
        code: Some(21656),
        retry_after: None,
    };
    for (cause, expected) in [
        ("none", "What?"),
        ("content", "3 people by number"),
        ("call", "3 people by number"),
        ("callback", "3 people by number"),
    ] {
        let twilio = FakeTwilio::start();
        match cause {
            "content" => twilio.content_fault(ContentFault::Status(500), 1),
            "call" => twilio.fault(rejected, 1),
            _ => {}
        }
        let app = TestApp::with_twilio(&twilio, &[], asks);
        app.says(1, "hi").await;
        let mut phone = twilio.wait_for_phone(USER, 1);
        if cause == "callback" {
            app.wait_for_outbox("pending", 0).await;
            let failed = twilio.status_webhook(&phone[0].sid, "undelivered", Some(63005));
            app.send(failed).await.twiml();
            phone = twilio.wait_for_phone(USER, 2);
        }
        let is_text = phone.last().unwrap().content.is_none();
        assert_eq!(is_text, cause != "none", "{cause}");
        app.wait_for_outbox("pending", 0).await;
        assert_eq!(app.says(2, "2").await, twiml_message(expected), "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_content_api_sends_numbered_text() {
    for status in [400, 401, 429, 500, 503] {
        let twilio = FakeTwilio::start();
        twilio.content_fault(ContentFault::Status(status), 1);
        let app = app(&twilio);
        app.says(1, "hi").await;
        let phone = twilio.wait_for_phone(USER, 1);
        assert_eq!(
            (phone[0].body.as_str(), &phone[0].content),
            (TEXT, &None),
            "{status}"
        );
        // For a minute the API is not called.
        app.says(2, "hi").await;
        twilio.wait_for_phone(USER, 2);
        assert_eq!(twilio.content_calls(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_content_api_does_not_hold_the_question() {
    let twilio = FakeTwilio::start();
    twilio.content_fault(ContentFault::Hang, 1);
    let app = app(&twilio);
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(phone[0].body, TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_content_is_sent_once_as_text() {
    for code in [63005, 63013, 63021, 63028] {
        let twilio = FakeTwilio::start();
        let app = app(&twilio);
        app.says(1, "hi").await;
        let phone = twilio.wait_for_phone(USER, 1);
        app.wait_for_outbox("pending", 0).await;
        let failed = twilio.status_webhook(&phone[0].sid, "undelivered", Some(code));
        for _ in 0..2 {
            app.send(failed.clone()).await.twiml();
        }
        let phone = twilio.wait_for_phone(USER, 2);
        assert_eq!((phone[1].body.as_str(), &phone[1].content), (TEXT, &None));
        // A second failure is final.
        app.wait_for_outbox("pending", 0).await;
        let failed = twilio.status_webhook(&phone[1].sid, "undelivered", Some(code));
        app.send(failed).await.twiml();
        app.wait_for_worker_rounds(2).await;
        assert_eq!(twilio.posts().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_refused_by_the_call_is_sent_as_text() {
    let twilio = FakeTwilio::start();
    let rejected = Fault::Status {
        status: 400,
        code: Some(21656),
        retry_after: None,
    };
    twilio.fault(rejected, 1);
    let app = app(&twilio);
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(phone[0].body, TEXT);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 2);
}

// The user gets the question in some form: a 404 and a refused content are two causes, each with one repetition.
#[tokio::test(flavor = "multi_thread")]
async fn content_refused_after_second_send_is_sent_as_text() {
    let twilio = FakeTwilio::start();
    let missing = Fault::Status {
        status: 404,
        code: Some(20404),
        retry_after: None,
    };
    twilio.fault(missing, 1);
    let app = app(&twilio);
    app.says(1, "hi").await;
    let phone = twilio.wait_for_phone(USER, 1);
    assert!(phone[0].content.is_some());
    app.wait_for_outbox("pending", 0).await;
    let refused = twilio.status_webhook(&phone[0].sid, "undelivered", Some(63021));
    app.send(refused).await.twiml();
    let phone = twilio.wait_for_phone(USER, 2);
    assert_eq!((phone[1].body.as_str(), &phone[1].content), (TEXT, &None));
    // Neither is repeated again.
    app.wait_for_outbox("pending", 0).await;
    for code in [63021, 63018] {
        let failed = twilio.status_webhook(&phone[1].sid, "failed", Some(code));
        app.send(failed).await.twiml();
    }
    app.wait_for_outbox("pending", 0).await;
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 3);
}

#[test]
fn log_warns_about_keyword_and_tells_that_text_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    let question =
        "[otherwise]\nreply.text = 'Really?'\nreply.choices = ['Yes', 'Opt out (all)']\n";
    let text = "Really?\n1. Yes\n2. Opt out (all)";
    std::fs::write(&rules, question).unwrap();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let server = Server::start(&[
        ("REPLYHOOK__HANDLER__KIND", "rules"),
        ("REPLYHOOK__HANDLER__RULES", rules.to_str().unwrap()),
        ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", api.as_str()),
    ]);
    server.send(&Webhook::message(1, "hi"));
    // A user who types "opt out", which is taken for it, would opt out. `Yes` is a keyword on SMS and RCS only.
    let warning = server.wait_for("a choice is one of the opt-out and opt-in words of this server");
    assert!(warning.contains("\"choice\":2"), "{warning}");
    let phone = twilio.wait_for_phone(USER, 1);
    server.send(&twilio.status_webhook(&phone[0].sid, "undelivered", Some(63005)));
    assert_eq!(twilio.wait_for_phone(USER, 2)[1].body, text);
    server.wait_for("the content of a message was refused; its text is sent now");
    let rejected = Fault::Status {
        status: 400,
        code: Some(21656),
        retry_after: None,
    };
    twilio.fault(rejected, 1);
    server.send(&Webhook::message(2, "hi again"));
    assert_eq!(twilio.wait_for_phone(USER, 3)[2].body, text);
    let log = server.log();
    for wrong in ["passes by itself", "had accepted"] {
        assert!(!log.contains(wrong), "{log}");
    }
}

// As for a text: a call of unknown result is looked up, and not repeated.
#[tokio::test(flavor = "multi_thread")]
async fn question_of_unknown_result_is_not_sent_twice() {
    let twilio = FakeTwilio::start();
    twilio.fault(Fault::AcceptedThenReset, 1);
    let app = app(&twilio);
    app.says(1, "hi").await;
    twilio.wait_for_phone(USER, 1);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.phone(USER).len(), 1);
    assert_eq!(app.outbox().await["held"], 0);
}

// By name and language. One that needs approval and has none is refused without a call.
#[tokio::test(flavor = "multi_thread")]
async fn template_is_found_by_name_and_language() {
    let twilio = FakeTwilio::start();
    twilio.add_template("receipt", "en", "twilio/text", "approved");
    let spanish = twilio.add_template("receipt", "es", "twilio/quick-reply", "unsubmitted");
    twilio.add_template("offer", "es", "twilio/carousel", "pending");
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(|_cx: Context, message: InboundMessage| {
            std::future::ready(ReplyMessage::template(message.body, "es").variable("1", "Ana"))
        })
    });
    assert_eq!(app.says(1, "receipt").await, EMPTY);
    twilio.wait_for_phone(USER, 1);
    let posts = twilio.posts();
    assert_eq!(posts[0].form.get("ContentSid"), Some(spanish.as_str()));
    assert_eq!(posts[0].form.get("TemplateName"), None);
    app.says(2, "offer").await;
    app.says(3, "missing").await;
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_location_and_link_are_sent() {
    let twilio = FakeTwilio::start();
    let sid = "HX00000000000000000000000000000042";
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(move |_cx: Context, message: InboundMessage| {
            let reply = match message.body.as_str() {
                "template" => ReplyMessage::content(sid).variable("1", "Ana"),
                "location" => ReplyMessage::location(40.4, -3.7, "Office"),
                _ => ReplyMessage::text("Your parcel.").link("Track it", "https://example.com/42"),
            };
            std::future::ready(reply)
        })
    });
    app.says(1, "template").await;
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(phone[0].body, format!(r#"{sid} {{"1":"Ana"}}"#));
    app.says(2, "location").await;
    let posts = twilio.wait_for_posts(2);
    assert_eq!(
        posts[1].form.get("PersistentAction"),
        Some("geo:40.4,-3.7|Office")
    );
    assert_eq!(posts[1].form.get("Body"), Some("Office"));
    app.says(3, "link").await;
    let phone = twilio.wait_for_phone(USER, 3);
    let content = phone[2].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/call-to-action");
    assert_eq!(
        content["fields"]["actions"][0]["url"],
        "https://example.com/42"
    );
}
