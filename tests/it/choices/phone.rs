//! Choices on the emulated phone: the same conversation on every channel.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use replyhook::choice::{Choice, Chosen};
use replyhook::dialogue::{Answers, Form, Question};
use replyhook::route::{Router, any_choice, choice, text};
use replyhook::testing::TestBot;
use replyhook::{App, Handler, Reply};
use serde_json::{Value, json};

const DAYS: [&str; 3] = ["Today", "Tomorrow", "Another day"];
const HOURS: [&str; 5] = ["9 am", "10 am", "11 am", "2 pm", "3 pm"];

async fn old_or_later(chosen: Chosen) -> String {
    let is_open = if chosen.current { "open" } else { "over" };
    format!("{} ({is_open})", chosen.id)
}

fn bot() -> impl Handler {
    let visit = Form::new("visit")
        .ask("day", Question::new("Which day?").choices(DAYS))
        .ask("hour", Question::new("Which hour?").choices(HOURS))
        .done(|_cx, answers: Answers| async move {
            let answer = |field: &str| answers.of::<String>(field).unwrap_or_default();
            format!("{} at {}.", answer("day"), answer("hour"))
        });
    Router::new()
        .form(text("book"), visit)
        .on(text("hi"), Reply::text("When?").choices(DAYS))
        .on(choice("today"), "Before 6 pm.")
        .on(any_choice(), old_or_later)
        .otherwise("What?")
}

#[tokio::test(flavor = "multi_thread")]
async fn conversation_is_the_same_on_every_channel() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    for address in [
        "whatsapp:+34600000001",
        "rcs:+34600000002",
        "messenger:34600000003",
        "+34600000004",
    ] {
        let ana = bot.user(address);
        ana.says("hi").await.assert_choices(DAYS);
        ana.taps("Today").await.assert_reply("Before 6 pm.");
        ana.says("hi").await.assert_choices(DAYS);
        ana.says("another day, please")
            .await
            .assert_reply("Another day (open)");
        ana.says("2").await.assert_reply("What?");
        ana.says("book").await.assert_choices(DAYS);
        ana.taps("Tomorrow").await.assert_choices(HOURS);
        ana.says("2pm").await.assert_reply("Tomorrow at 2 pm.");
    }
}

// The bot sees that a tapped question is over. On SMS the same tap is a typed number, which is an ordinary text then.
#[tokio::test(flavor = "multi_thread")]
async fn button_of_old_question_is_known_as_such() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await.assert_choices(DAYS);
    ana.taps("Another day")
        .await
        .assert_reply("Another day (open)");
    ana.taps("Tomorrow").await.assert_reply("Tomorrow (over)");
    let ben = bot.sms("+34600000002");
    ben.says("hi").await.assert_choices(DAYS);
    ben.taps("Another day")
        .await
        .assert_reply("Another day (open)");
    ben.taps("Tomorrow").await.assert_reply("What?");
}

async fn via_of(chosen: Chosen) -> String {
    format!("{} by {}", chosen.id, chosen.via.as_str())
}

fn via_bot() -> impl Handler {
    Router::new()
        .on(text("days"), Reply::text("When?").choices(DAYS))
        .on(text("hours"), Reply::text("When?").choices(HOURS))
        .on(any_choice(), via_of)
        .otherwise("What?")
}

#[tokio::test(flavor = "multi_thread")]
async fn tap_has_the_way_of_the_channels_form() {
    let bot = TestBot::start(|| App::builder().handler(via_bot())).await;
    for (address, day, hour) in [
        ("whatsapp:+34600000001", "button", "list"),
        ("rcs:+34600000002", "chip", "chip"),
        ("messenger:34600000003", "button", "button"),
        ("+34600000004", "number", "number"),
    ] {
        let ana = bot.user(address);
        ana.says("days").await;
        let reply = format!("Tomorrow by {day}");
        ana.taps("Tomorrow").await.assert_reply(&reply);
        ana.says("hours").await;
        ana.taps("2 pm")
            .await
            .assert_reply(&format!("2 pm by {hour}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn question_is_over_after_its_time() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    for (address, reply) in [
        ("whatsapp:+34600000001", "Tomorrow (over)"),
        ("+34600000004", "What?"),
    ] {
        let ana = bot.user(address);
        ana.says("hi").await.assert_choices(DAYS);
        bot.advance(Duration::from_hours(25)).await;
        ana.says("tomorrow").await.assert_reply("What?");
        ana.taps("Tomorrow").await.assert_reply(reply);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn button_of_another_bot_does_not_answer_the_question() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    let ana = bot.whatsapp("+34600000001");
    // A tap is always told, here to the route of choices.
    ana.presses("Today", "today")
        .await
        .assert_reply("Before 6 pm.");
    ana.says("hi").await.assert_choices(DAYS);
    ana.presses("Today", "today").await;
    // The question is still open.
    ana.says("1").await.assert_reply("Before 6 pm.");
}

// The test kit stops a bot whose users cannot answer: a choice, an answer or a cancel word that is a keyword.
#[tokio::test(flavor = "multi_thread")]
async fn consent_keyword_as_answer_fails_the_test() {
    let form = || {
        Form::new("order")
            .ask(
                "size",
                Question::new("Which size?").choice(["small", "end"]),
            )
            .cancel("cancel", "Never mind.")
            .done(|_cx, _answers: Answers| async { "Done." })
    };
    let handler = move || {
        Router::new()
            .on(
                text("ask"),
                Reply::text("More?").choices(["Yes", "Unsubscribe"]),
            )
            .form(text("order"), form())
            .otherwise("What?")
    };
    let bot = TestBot::start(move || App::builder().handler(handler())).await;
    let failure = async |address: &str, message: &str| {
        let user = bot.user(address);
        let said = AssertUnwindSafe(user.says(message)).catch_unwind().await;
        let panic = said.err()?;
        Some(panic.downcast_ref::<String>().expect("a text").clone())
    };
    for (address, message, words) in [
        ("+34600000004", "ask", &["Yes", "Unsubscribe"][..]),
        ("rcs:+34600000002", "ask", &["Yes", "Unsubscribe"]),
        ("+34600000005", "order", &["cancel", "end"]),
        ("whatsapp:+34600000001", "ask", &["Unsubscribe"]),
    ] {
        let text = failure(address, message).await.expect("a failed test");
        assert_eq!(text.lines().count(), words.len(), "{text}");
        for word in words {
            let start = format!("the bot offers the answer {word:?} on ");
            assert!(text.contains(&start), "{text}");
        }
        assert!(text.contains("use another word"), "{text}");
    }
    assert_eq!(failure("whatsapp:+34600000001", "order").await, None);
    assert_eq!(failure("messenger:34600000003", "hi").await, None);
}

// The response has the question that goes via the REST API, with the bot's own IDs, and `choice.id` is one of them.
#[tokio::test(flavor = "multi_thread")]
async fn response_has_question_and_tap_takes_id_of_item() {
    let question = || {
        Reply::text("When?").choices([
            Choice::new("today", "Today"),
            Choice::new("other", "Another day"),
        ])
    };
    let handler = move || {
        Router::new()
            .on(any_choice(), old_or_later)
            .otherwise(question())
    };
    let bot = TestBot::start(move || App::builder().handler(handler())).await;
    let send = async |message: Value| {
        let client = bot.emulator_client();
        client.post(&["messages"], &message).await.unwrap()
    };
    for (user, kind) in [
        ("whatsapp:+34600000001", "buttons"),
        ("rcs:+34600000002", "chips"),
        ("messenger:34600000003", "buttons"),
    ] {
        let asked = send(json!({"from": user, "body": "hi"})).await;
        let content = &asked["messages"][0]["content"];
        let items =
            json!([{"id": "today", "title": "Today"}, {"id": "other", "title": "Another day"}]);
        assert_eq!(
            (&content["type"], &content["items"]),
            (&json!(kind), &items)
        );
        let tapped = send(json!({"from": user, "choice": {"id": "other"}})).await;
        assert_eq!(tapped["messages"][0]["body"], "other (open)");
        // The payload that the webhook gets names the item as well.
        let sid = tapped["message_sid"].as_str().unwrap();
        let conversation = bot.emulator_client().get(&["conversations", user]).await;
        let conversation = conversation.unwrap();
        let mut messages = conversation.as_array().unwrap().iter();
        let tap = messages.find(|message| message["sid"] == sid).unwrap();
        let payload = tap["button"]["payload"].as_str().unwrap();
        assert!(payload.starts_with("rh1"), "{payload}");
        let again = send(json!({"from": user, "choice": {"id": payload}})).await;
        assert_eq!(again["messages"][0]["body"], "other (over)");
        let path = ["conversations", user, "test"];
        let test = bot.emulator_client().text_of(&path, &[]);
        let test = test.await.unwrap();
        assert!(test.contains("user.taps(\"Another day\").await"), "{test}");
    }
}

// The emulator forgets the fault at a reset, and so does the server: it does not send texts for the rest of the minute.
#[tokio::test(flavor = "multi_thread")]
async fn reset_ends_the_pause_after_a_content_failure() {
    let bot = TestBot::start(|| App::builder().handler(bot())).await;
    let ana = bot.whatsapp("+34600000001");
    let fails = json!({"status": 500, "code": 20500, "times": 1});
    bot.set_fault("content_error", fails).await;
    let numbered = "When?\n1. Today\n2. Tomorrow\n3. Another day";
    for _ in 0..2 {
        ana.says("hi").await.assert_reply(numbered);
    }
    let reset = bot.emulator_client().post(&["reset"], &json!({})).await;
    reset.unwrap();
    let exchange = ana.says("hi").await;
    exchange.assert_choices(DAYS);
    assert_ne!(exchange.received[0].body, numbered);
}
