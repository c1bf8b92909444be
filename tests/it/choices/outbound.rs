//! Questions and other rich content in outbound messages: the same forms, answers and texts as in replies.

use std::sync::{Arc, Mutex};

use replyhook::choice::{Choice, Chosen};
use replyhook::outbound::SendErrorKind;
use replyhook::twilio::{NewMessage, RestErrorKind};
use replyhook::{Context, InboundMessage, Media, Reply, ReplyMessage};

use crate::support::{ACCOUNT, FakeTwilio, TOKEN, TempStore, TestApp, Webhook, json_lines};

const USER: &str = "whatsapp:+15550001111";
const SENDER: &str = "whatsapp:+15550002222";
const ENV: [(&str, &str); 1] = [("TWILIO_ACCOUNT_SID", ACCOUNT)];

type Answers = Arc<Mutex<Vec<Option<Chosen>>>>;

fn app(twilio: &FakeTwilio, env: &[(&str, &str)]) -> (TestApp, Answers) {
    let answers = Answers::default();
    let seen = answers.clone();
    let app = TestApp::with_twilio(twilio, &[&ENV[..], env].concat(), |app| {
        app.handler(move |_cx: Context, message: InboundMessage| {
            seen.lock().unwrap().push(message.choice());
            std::future::ready(())
        })
    });
    (app, answers)
}

fn last(answers: &Answers) -> Option<(String, &'static str, Option<String>, bool)> {
    let chosen = answers.lock().unwrap().last().unwrap().clone()?;
    Some((chosen.id, chosen.via.as_str(), chosen.key, chosen.current))
}

fn question() -> ReplyMessage {
    ReplyMessage::text("When?")
        .choices([
            Choice::new("today", "Today"),
            Choice::new("other", "Another day"),
        ])
        .choices_key("day")
}

fn asks(question: impl Into<Reply>) -> NewMessage {
    NewMessage::reply(USER, question).from(SENDER)
}

#[tokio::test(flavor = "multi_thread")]
async fn outbound_question_is_answered_by_tap_title_and_number() {
    let twilio = FakeTwilio::start();
    let (app, answers) = app(&twilio, &[]);
    app.says(1, "hi").await;
    app.outbound.send(&asks(question())).await.unwrap();
    let phone = twilio.wait_for_phone(USER, 1);
    let content = phone[0].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/quick-reply");
    let button = &content["fields"]["actions"][1];
    assert_eq!(button["title"], "Another day");
    let tap = Webhook::message(2, "Another day")
        .with("ButtonText", "Another day")
        .with("ButtonPayload", button["id"].as_str().unwrap())
        .with("MessageType", "interactive");
    app.send(tap).await.twiml();
    let key = Some("day".to_owned());
    assert_eq!(
        last(&answers),
        Some(("other".to_owned(), "button", key.clone(), true))
    );
    for (number, answer, via) in [(3, "today!", "text"), (4, "1.", "number")] {
        app.outbound.send(&asks(question())).await.unwrap();
        app.says(number, answer).await;
        assert_eq!(
            last(&answers),
            Some(("today".to_owned(), via, key.clone(), true))
        );
    }
    // It is answered.
    app.says(5, "1").await;
    assert_eq!(last(&answers), None);
}

// A user of SMS who has never written to this sender.
#[tokio::test(flavor = "multi_thread")]
async fn outbound_question_by_sms_opens_the_conversation() {
    let (user, sender) = ("+15550009999", "+15550002222");
    let twilio = FakeTwilio::start();
    let env = [("REPLYHOOK__REPLY__CHOICES_HINT", "Nur die Nummer.")];
    let (app, answers) = app(&twilio, &env);
    app.wait_until_ready().await;
    let asked = NewMessage::reply(user, question()).from(sender);
    app.outbound.send(&asked).await.unwrap();
    let phone = twilio.wait_for_phone(user, 1);
    assert_eq!(
        phone[0].body,
        "When?\n1. Today\n2. Another day\nNur die Nummer."
    );
    let answer = Webhook::message(1, "2")
        .with("From", user)
        .with("To", sender);
    app.send(answer).await.twiml();
    let expected = ("other".to_owned(), "number", Some("day".to_owned()), true);
    assert_eq!(last(&answers), Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_outbound_question_is_sent_once_as_text() {
    let twilio = FakeTwilio::start();
    let (app, answers) = app(&twilio, &[]);
    app.says(1, "hi").await;
    app.outbound.send(&asks(question())).await.unwrap();
    let phone = twilio.wait_for_phone(USER, 1);
    app.wait_for_outbox("pending", 0).await;
    let failed = twilio.status_webhook(&phone[0].sid, "undelivered", Some(63005));
    app.send(failed).await.twiml();
    let phone = twilio.wait_for_phone(USER, 2);
    assert_eq!(phone[1].body, "When?\n1. Today\n2. Another day");
    assert_eq!(phone[1].content, None);
    app.says(2, "2").await;
    let expected = ("other".to_owned(), "number", Some("day".to_owned()), true);
    assert_eq!(last(&answers), Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_outbound_reply_is_refused_with_reason() {
    let twilio = FakeTwilio::start();
    let (app, _) = app(&twilio, &[]);
    app.says(1, "hi").await;
    let service = "MG00000000000000000000000000000001".parse().unwrap();
    let later =
        replyhook::Clock::now(&replyhook::SystemClock) + jiff::SignedDuration::from_hours(1);
    let to_stranger = NewMessage::reply("whatsapp:+15550007777", question()).from(SENDER);
    let sms = NewMessage::reply("+15550009999", question()).service(service);
    let elsewhere = question().to("whatsapp:+15550003333");
    for (message, part) in [
        (to_stranger, "the customer service window is closed"),
        (sms, "a question with choices needs its sender"),
        (
            asks(question()).service(service).send_at(later),
            "cannot be scheduled",
        ),
        (
            asks(ReplyMessage::text("A?").choices(["x", "X"])),
            "the same title",
        ),
        (asks(ReplyMessage::default()), "nothing to send"),
        (asks(elsewhere), "a recipient or sender of its own"),
        (
            asks(Reply::handoff("https://flows.example.com").unwrap()),
            "redirect",
        ),
        (
            asks(question().media(Media::bytes(*b"x", "image/png"))),
            "not at a public URL",
        ),
        (
            asks(question().media(Media::url("https://h/a.txt"))),
            "type text/plain",
        ),
        (asks(ReplyMessage::content("HX1")), "not a content SID"),
        (
            asks(Reply::text("x".repeat(21 * 1600))),
            "longer than 20 messages",
        ),
    ] {
        let error = app.outbound.send(&message).await.unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
        let expected = if part.contains("window") {
            SendErrorKind::WindowClosed
        } else {
            SendErrorKind::Invalid
        };
        assert_eq!(error.kind(), expected, "{part}");
    }
    // Nothing was sent or asked.
    assert_eq!(twilio.posts().len(), 0);
    let client =
        replyhook::twilio::Client::new(replyhook::twilio::ApiUrl::parse(&twilio.url()).unwrap());
    let account = ACCOUNT.parse().unwrap();
    let credentials =
        replyhook::twilio::Credentials::auth_token(account, replyhook::Secret::new(TOKEN));
    let window = replyhook::store::OpenWindow::of(&"+15550001111".into(), None, later).unwrap();
    let (messages, message) = (client.messages(account, &credentials), asks(question()));
    let error = messages.create(&message, &window).await.unwrap_err();
    assert_eq!(error.kind(), RestErrorKind::OutboundOnly);
}

// Several messages of one key: the receipt is that of the last one.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_texts_precede_the_question() {
    let twilio = FakeTwilio::start();
    let (app, _) = app(&twilio, &[]);
    app.says(1, "hi").await;
    let menu = question().media(Media::url("https://h/menu.pdf"));
    let message = asks(Reply::text("Hello.").and(menu));
    let first = app.outbound.send_once("k", &message).await.unwrap();
    let phone = twilio.wait_for_phone(USER, 3);
    let bodies: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!((bodies[0], bodies[2]), ("Hello.", "When?"));
    app.wait_for_outbox("pending", 0).await;
    let again = app.outbound.send_once("k", &message).await.unwrap();
    assert_eq!(
        (again.id, again.is_duplicate, again.differs),
        (first.id, true, false)
    );
    assert_eq!(again.sid.unwrap().as_str(), phone[2].sid);
    let other = asks(ReplyMessage::text("When?").choices(["Today", "Never"]));
    let other = app.outbound.send_once("k", &other).await.unwrap();
    assert_eq!((other.id, other.differs), (first.id, true));
    assert_eq!(twilio.posts().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn link_location_and_named_template_are_sent() {
    let twilio = FakeTwilio::start();
    twilio.add_template("receipt", "es", "twilio/text", "approved");
    twilio.add_template("offer", "es", "twilio/carousel", "unsubmitted");
    let (app, _) = app(&twilio, &[("REPLYHOOK__CONSENT__REQUIRED", "false")]);
    app.says(1, "hi").await;
    let send = async |message: ReplyMessage| app.outbound.send(&asks(message)).await;
    send(ReplyMessage::text("Your parcel.").link("Track it", "https://example.com/42"))
        .await
        .unwrap();
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        phone[0].content.as_ref().unwrap()["type"],
        "twilio/call-to-action"
    );
    send(ReplyMessage::location(40.4, -3.7, "Office"))
        .await
        .unwrap();
    let posts = twilio.wait_for_posts(2);
    assert_eq!(
        posts[1].form.get("PersistentAction"),
        Some("geo:40.4,-3.7|Office")
    );
    let receipt = ReplyMessage::template("receipt", "es").variable("1", "Ana");
    send(receipt.clone()).await.unwrap();
    let posts = twilio.wait_for_posts(3);
    assert!(posts[2].form.get("ContentSid").is_some());
    // A user whose window is closed gets a template, and nothing with a text besides.
    let stranger = |reply: Reply| NewMessage::reply("whatsapp:+15550007777", reply).from(SENDER);
    let alone = stranger(Reply::from(receipt.clone()));
    app.outbound.send(&alone).await.unwrap();
    let with_text = stranger(Reply::text("Hello.").and(receipt));
    let error = app.outbound.send(&with_text).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::WindowClosed);
    let missing = send(ReplyMessage::template("receipt", "de"))
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), SendErrorKind::NoSuchTemplate);
    assert!(
        missing.to_string().contains("name and language"),
        "{missing}"
    );
}

#[test]
fn send_command_asks_question() {
    let twilio = FakeTwilio::start();
    let store = TempStore::with(&twilio);
    let url = twilio.url();
    let server = store.server_with(&[("REPLYHOOK__TWILIO__CONTENT_URL", url.as_str())]);
    server.send(&Webhook::message(1, "hello")).twiml();
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("REPLYHOOK__TWILIO__CONTENT_URL", url.as_str()),
        ("REPLYHOOK__REPLY__CHOICES_BUTTON", "Days"),
    ];
    let send = |args: &[&str]| {
        let all = [&["send", "--to", USER, "--from", SENDER], args].concat();
        store.run_with(&all, &env)
    };
    let before = twilio.phone(USER).len();
    let question = [
        "--body",
        "When?",
        "--choice",
        "today=Today",
        "--choice",
        "Another day",
    ];
    let more = [
        "--choice",
        "Monday",
        "--choice",
        "Tuesday",
        "--choices-key",
        "day",
    ];
    let all = [&question[..], &more, &["--json"]].concat();
    let (code, out, err) = send(&all);
    assert_eq!(code, 0, "{err}");
    assert_eq!(json_lines(&out)[0]["state"], "pending");
    let phone = twilio.wait_for_phone(USER, before + 1);
    let content = phone[before].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/list-picker");
    assert_eq!(content["fields"]["button"], "Days");
    assert_eq!(content["fields"]["items"][0]["item"], "Today");
    for (args, part) in [
        (&["--choice", "A"][..], "add a text"),
        (&["--body", "x", "--choices-key", "k"], "--choice"),
        (&["--body", "x", "--choice", "=A"], "ID=TITLE"),
        (
            &["--body", "x", "--choice", "A", "--choice", "a"],
            "the same title",
        ),
        (&["--template-name", "x"], "--language"),
        (
            &[
                "--body",
                "x",
                "--choice",
                "A",
                "--choices-button",
                "A label of 21 letters",
            ],
            "at most 20 characters",
        ),
    ] {
        let (code, _, err) = send(args);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    for (to, from, is_warned) in [
        ("+15550001111", "+15550002222", true),
        (USER, SENDER, false),
    ] {
        let args = ["send", "--to", to, "--from", from, "--body", "Sure?"];
        let args = [&args[..], &["--choice", "Stop!", "--dry-run"]].concat();
        let (code, _, err) = store.run_with(&args, &env);
        assert_eq!(code, 0, "{err}");
        assert_eq!(err.contains("STOP is a keyword"), is_warned, "{err}");
    }
}
