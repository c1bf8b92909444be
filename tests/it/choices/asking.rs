//! Asking and answering in one process: the forms of the channels, taps, typed answers, and the end of a question.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use replyhook::choice::{Choice, Chosen};
use replyhook::{Clock, Context, InboundMessage, ManualClock, Reply, ReplyMessage, SystemClock};
use serde_json::Value;

use crate::support::{EMPTY, FakeTwilio, PhoneMessage, TestApp, Webhook, twiml_message};

const USER: &str = "whatsapp:+15550001111";

/// Choice of a message, and the message.
type Seen = (Option<Chosen>, InboundMessage);

/// Asks a question for "ask …", and records the choice of any other message.
#[derive(Clone, Default)]
struct Asker {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Asker {
    fn handler(&self) -> impl replyhook::Handler {
        let seen = self.seen.clone();
        move |_cx: Context, message: InboundMessage| {
            let reply = match message.body.as_str() {
                "ask" => Some(
                    ReplyMessage::text("When?")
                        .choices([
                            Choice::new("today", "Today"),
                            Choice::new("other", "Another day"),
                        ])
                        .choices_key("day"),
                ),
                "ask more" => Some(ReplyMessage::text("Size?").choices(["S", "M", "L", "XL"])),
                _ => None,
            };
            seen.lock().unwrap().push((message.choice(), message));
            std::future::ready(reply)
        }
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    /// The last choice: ID, way, key, and whether its question was open.
    fn chosen(&self) -> Option<(String, &'static str, Option<String>, bool)> {
        let chosen = self.last().0?;
        Some((chosen.id, chosen.via.as_str(), chosen.key, chosen.current))
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it is compared with the choice of a message"
)]
fn chosen(
    id: &str,
    via: &'static str,
    key: Option<&str>,
    current: bool,
) -> Option<(String, &'static str, Option<String>, bool)> {
    Some((id.to_owned(), via, key.map(str::to_owned), current))
}

/// Titles and IDs of the buttons or items on the phone.
fn items(message: &PhoneMessage) -> Vec<(String, String)> {
    let fields = &message.content.as_ref().expect("a rich message")["fields"];
    let list = fields["actions"]
        .as_array()
        .or_else(|| fields["items"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let item = |item: &Value| {
        let title = if item["title"].is_null() {
            &item["item"]
        } else {
            &item["title"]
        };
        (text(title), text(&item["id"]))
    };
    list.expect("options").iter().map(item).collect()
}

fn tap(number: u64, item: &(String, String)) -> Webhook {
    Webhook::message(number, &item.0)
        .with("ButtonText", &item.0)
        .with("ButtonPayload", &item.1)
        .with("MessageType", "interactive")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsapp_shows_buttons_and_tap_is_reported() {
    let twilio = FakeTwilio::start();
    let asker = Asker::default();
    let app = TestApp::with_twilio(&twilio, &[], |app| app.handler(asker.handler()));
    assert_eq!(app.says(1, "ask").await, EMPTY);
    let phone = twilio.wait_for_phone(USER, 1);
    let content = phone[0].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/quick-reply");
    assert_eq!(content["fields"]["body"], "When?");
    let buttons = items(&phone[0]);
    assert_eq!(
        buttons
            .iter()
            .map(|(title, _)| title.as_str())
            .collect::<Vec<_>>(),
        ["Today", "Another day"]
    );
    app.send(tap(2, &buttons[1])).await.twiml();
    assert_eq!(asker.chosen(), chosen("other", "button", Some("day"), true));
    // The bot sees its own ID and not the payload.
    let (_, message) = asker.last();
    assert_eq!(message.button.unwrap().payload.as_deref(), Some("other"));
    assert_eq!(message.params.get("ButtonPayload"), Some("other"));
    // The question was answered, so its other button is an old one.
    app.send(tap(3, &buttons[0])).await.twiml();
    assert_eq!(
        asker.chosen(),
        chosen("today", "button", Some("day"), false)
    );
    assert_eq!(asker.last().0.unwrap().title, "Today");
    // A redelivery of the answer gets the saved response, and the handler does not run again.
    let runs = asker.seen.lock().unwrap().len();
    app.send(tap(2, &buttons[1])).await.twiml();
    assert_eq!(asker.seen.lock().unwrap().len(), runs);
}

// The title of a choice that is also a keyword: a tap is the answer, and a typed text opts out.
#[tokio::test(flavor = "multi_thread")]
async fn tap_on_choice_with_keyword_as_title_is_an_answer() {
    let titles = ["Opt out", "basta", "START"];
    let twilio = FakeTwilio::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let bot = move |_cx: Context, message: InboundMessage| {
        let asks = message.body == "ask";
        record.lock().unwrap().push(message.choice());
        std::future::ready(asks.then(|| ReplyMessage::text("What?").choices(titles)))
    };
    let env = [("REPLYHOOK__CONSENT__STOP_WORDS", "STOP, opt out, basta")];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(bot));
    for (round, (user, sender)) in (1..).zip([
        (USER, "whatsapp:+15550002222"),
        ("messenger:1234567890", "messenger:9876543210"),
    ]) {
        let from_user = |webhook: Webhook| webhook.with("From", user).with("To", sender);
        let number = round * 10;
        app.send(from_user(Webhook::message(number, "ask"))).await;
        let phone = twilio.wait_for_phone(user, 1);
        for (number, item) in (number + 1..).zip(items(&phone[0])) {
            assert_eq!(app.send(from_user(tap(number, &item))).await.twiml(), EMPTY);
            let chosen = seen.lock().unwrap().last().unwrap().clone();
            assert_eq!(chosen.map(|chosen| chosen.id), Some(item.0), "{user}");
        }
        let typed = app.send(from_user(Webhook::message(number + 5, "Opt out")));
        assert!(typed.await.twiml().contains("no more messages"), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_choices_are_a_list_with_label_of_settings() {
    let twilio = FakeTwilio::start();
    let asker = Asker::default();
    let env = [("REPLYHOOK__REPLY__CHOICES_BUTTON", "Größen")];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(asker.handler()));
    app.says(1, "ask more").await;
    let phone = twilio.wait_for_phone(USER, 1);
    let content = phone[0].content.as_ref().unwrap();
    assert_eq!(content["type"], "twilio/list-picker");
    assert_eq!(content["fields"]["button"], "Größen");
    app.send(tap(2, &items(&phone[0])[2])).await.twiml();
    assert_eq!(asker.chosen(), chosen("L", "list", None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_without_label_is_numbered_text() {
    let twilio = FakeTwilio::start();
    let asker = Asker::default();
    let env = [
        ("REPLYHOOK__REPLY__CHOICES_BUTTON", ""),
        ("REPLYHOOK__REPLY__CHOICES_HINT", "Nur die Nummer."),
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(asker.handler()));
    assert_eq!(
        app.says(1, "ask more").await,
        twiml_message("Size?\n1. S\n2. M\n3. L\n4. XL\nNur die Nummer.")
    );
    app.says(2, "4").await;
    assert_eq!(asker.chosen(), chosen("XL", "number", None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_answer_counts_while_question_is_open() {
    let twilio = FakeTwilio::start();
    let asker = Asker::default();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.clock(shared).handler(asker.handler())
    });
    app.says(1, "ask").await;
    app.says(2, "not today").await;
    assert_eq!(asker.chosen(), None);
    app.says(3, " *ANOTHER  day*!").await;
    assert_eq!(asker.chosen(), chosen("other", "text", Some("day"), true));
    // It is answered.
    app.says(4, "today").await;
    assert_eq!(asker.chosen(), None);
    // The next question ends the one before.
    app.says(5, "ask").await;
    let buttons = items(&twilio.wait_for_phone(USER, 2)[1]);
    app.says(6, "ask more").await;
    app.says(7, "today").await;
    assert_eq!(asker.chosen(), None);
    app.send(tap(8, &buttons[0])).await.twiml();
    assert_eq!(
        asker.chosen(),
        chosen("today", "button", Some("day"), false)
    );
    // A tap on an old question does not end the open one.
    app.says(9, "2").await;
    assert_eq!(asker.chosen(), chosen("M", "number", None, true));
    // Its time passes.
    app.says(10, "ask").await;
    clock.advance(Duration::from_hours(23).try_into().unwrap());
    app.says(11, "something else").await;
    clock.advance(Duration::from_mins(61).try_into().unwrap());
    app.says(12, "1").await;
    assert_eq!(asker.chosen(), None);
}

// A channel without rich content gets the text in the response, which costs no call.
#[tokio::test(flavor = "multi_thread")]
async fn sms_question_is_in_the_response() {
    let asker = Asker::default();
    let app = TestApp::with(asker.handler());
    let sms = |number: u64, body: &str| {
        Webhook::message(number, body)
            .with("From", "+15550001111")
            .with("To", "+15550002222")
    };
    let response = app.send(sms(1, "ask")).await;
    assert_eq!(
        response.twiml(),
        twiml_message("When?\n1. Today\n2. Another day")
    );
    app.send(sms(2, "2.")).await.twiml();
    assert_eq!(asker.chosen(), chosen("other", "number", Some("day"), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn rcs_and_messenger_show_their_forms() {
    for (channel, kind, via) in [
        ("rcs", "twilio/card", "chip"),
        ("messenger", "twilio/quick-reply", "button"),
    ] {
        let twilio = FakeTwilio::start();
        let asker = Asker::default();
        let app = TestApp::with_twilio(&twilio, &[], |app| app.handler(asker.handler()));
        let user = format!("{channel}:+15550001111");
        let bot = format!("{channel}:brand");
        let from_user = |webhook: Webhook| webhook.with("From", &user).with("To", &bot);
        app.send(from_user(Webhook::message(1, "ask more")))
            .await
            .twiml();
        let phone = twilio.wait_for_phone(&user, 1);
        let content = phone[0].content.as_ref().unwrap();
        assert_eq!(content["type"], kind);
        if channel == "rcs" {
            assert_eq!(content["fields"]["actions"][0]["chip_list"], true);
        }
        app.send(from_user(tap(2, &items(&phone[0])[3])))
            .await
            .twiml();
        assert_eq!(asker.chosen(), chosen("XL", via, None, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_two_users_are_separate() {
    let asker = Asker::default();
    let app = TestApp::with(asker.handler());
    let sms = |number: u64, user: &str, body: &str| {
        Webhook::message(number, body)
            .with("From", user)
            .with("To", "+15550002222")
    };
    app.send(sms(1, "+15550001111", "ask")).await.twiml();
    app.send(sms(2, "+15550003333", "1")).await.twiml();
    assert_eq!(asker.chosen(), None);
    app.send(sms(3, "+15550001111", "1")).await.twiml();
    assert_eq!(asker.chosen(), chosen("today", "number", Some("day"), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_choices_fail_the_handler() {
    let none: [&str; 0] = [];
    for reply in [
        Reply::text("When?").choices(["Today", "TODAY"]),
        Reply::text("When?").choices(["Today", " "]),
        Reply::text("When?").choices(none),
        Reply::text("When?").choices((0..100).map(|number| number.to_string())),
    ] {
        let app = TestApp::with(move |_cx: Context, _message: InboundMessage| {
            std::future::ready(reply.clone())
        });
        let response = app.send(Webhook::message(1, "hi")).await;
        assert_eq!(response.status, 500);
    }
}

// Too much for a list, and still the whole question.
#[tokio::test(flavor = "multi_thread")]
async fn long_question_goes_as_text_with_whole_titles() {
    let long = "A title that is far longer than the twenty-four characters of a list";
    let reply = Reply::text("Which?").choices([long, "Short"]);
    let app = TestApp::with(move |_cx: Context, _message: InboundMessage| {
        std::future::ready(reply.clone())
    });
    assert_eq!(
        app.says(1, "hi").await,
        twiml_message(&format!("Which?\n1. {long}\n2. Short"))
    );
}

// A template or another program on the same number has sent it.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_button_does_not_answer_open_question() {
    let twilio = FakeTwilio::start();
    let asker = Asker::default();
    let app = TestApp::with_twilio(&twilio, &[], |app| app.handler(asker.handler()));
    let foreign = ("Today".to_owned(), "today".to_owned());
    app.send(tap(1, &foreign)).await.twiml();
    // A tap is always told.
    assert_eq!(asker.chosen(), chosen("today", "button", None, true));
    app.says(2, "ask").await;
    app.send(tap(3, &foreign)).await.twiml();
    assert_eq!(asker.chosen(), chosen("today", "button", None, false));
    let (_, message) = asker.last();
    assert_eq!(message.button.unwrap().payload.as_deref(), Some("today"));
    // It did not end the question.
    app.says(4, "today").await;
    assert_eq!(asker.chosen(), chosen("today", "text", Some("day"), true));
}

// The numbered text shows numbers, so "2" is the second choice although a title could be an hour; "9" is the hour.
#[tokio::test(flavor = "multi_thread")]
async fn typed_number_is_a_position_where_numbers_were_shown() {
    let (user, sender) = ("+15550001111", "+15550002222");
    let app = TestApp::with(|_cx: Context, message: InboundMessage| {
        let reply = match message.choice() {
            Some(chosen) => Reply::text(format!("{} by {}", chosen.id, chosen.via.as_str())),
            None => Reply::text("When?").choices(["9:00", "10:00", "11:00"]),
        };
        std::future::ready(reply)
    });
    let says = async |number, text: &str| {
        let webhook = Webhook::message(number, text);
        let webhook = webhook.with("From", user).with("To", sender);
        app.send(webhook).await.twiml().to_owned()
    };
    let question = twiml_message("When?\n1. 9:00\n2. 10:00\n3. 11:00");
    for (number, answer, expected) in [
        (1, "2", "10:00 by number"),
        (3, "9", "9:00 by text"),
        (5, "10", "10:00 by text"),
        (7, "number 3", "11:00 by number"),
    ] {
        assert_eq!(says(number, "hi").await, question);
        let given = says(number + 1, answer).await;
        assert_eq!(given, twiml_message(expected), "{answer}");
    }
}
