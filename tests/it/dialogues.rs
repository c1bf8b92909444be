//! Conversation state, forms and history, all saved together with the reply or not at all.

use std::time::Duration;

use replyhook::dialogue::{Form, Question};
use replyhook::handler::Role;
use replyhook::route::{Router, command, text};
use replyhook::testing::TestBot;
use replyhook::{App, Context, Handler, HandlerError, InboundMessage, Reply, ReplyMessage};
use serde::{Deserialize, Serialize};

#[cfg(feature = "failpoints")]
use crate::support::{TestApp, Webhook, wal};

#[derive(Default, Serialize, Deserialize)]
enum Order {
    #[default]
    Nothing,
    Dish(String),
}

/// Asks for the number of a dish. The dish expires after an hour, and a text that ends in "badly" fails.
async fn kitchen(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    let order = cx.state::<Order>().expires_in(Duration::from_hours(1));
    let orders = cx.state_named::<u32>("orders");
    match order.load().await? {
        Order::Nothing => {
            let dish = message.body.trim_end_matches(" badly").to_owned();
            order.save(&Order::Dish(dish)).await?;
            if message.body.ends_with(" badly") {
                return Err(HandlerError::new("failed on request"));
            }
            Ok("How many?".to_owned())
        }
        Order::Dish(dish) => {
            order.clear().await?;
            let number = orders.load().await? + 1;
            orders.save(&number).await?;
            Ok(format!("{number}. {} {dish}", message.body))
        }
    }
}

async fn bot() -> TestBot {
    TestBot::start(|| App::builder().handler(kitchen)).await
}

#[tokio::test]
async fn state_survives_restart_per_conversation() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    let ben = bot.whatsapp("+34600000002");
    ana.says("soup").await.assert_reply("How many?");
    ben.says("cake").await.assert_reply("How many?");
    bot.restart().await;
    ana.says("2").await.assert_reply("1. 2 soup");
    ben.says("5").await.assert_reply("1. 5 cake");
    ana.says("tea").await.assert_reply("How many?");
    ana.says("3").await.assert_reply("2. 3 tea");
}

#[tokio::test]
async fn expired_state_is_cleared_and_others_remain() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("soup").await;
    ana.says("2").await.assert_reply("1. 2 soup");
    ana.says("cake").await.assert_reply("How many?");
    bot.advance(Duration::from_mins(61)).await;
    ana.says("tea").await.assert_reply("How many?");
    ana.says("3").await.assert_reply("2. 3 tea");
}

#[tokio::test]
async fn failing_handler_saves_no_state() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("soup badly").await;
    ana.says("cake").await.assert_reply("How many?");
    ana.says("1").await.assert_reply("1. 1 cake");
}

// State that a handler saves after the deadline counts like any other, and a redelivery does not change it.
#[tokio::test]
async fn late_reply_saves_state() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    bot.set_handler_latency(Duration::from_secs(20)).await;
    ana.says("soup").await.assert_replied_via_rest("How many?");
    bot.set_handler_latency(Duration::ZERO).await;
    ana.says("2").await.assert_reply("1. 2 soup");
    bot.redeliver().await.assert_same_response();
    ana.says("cake").await.assert_reply("How many?");
}

#[derive(Deserialize)]
struct Booking {
    name: String,
    guests: u8,
    outside: bool,
    heated: Option<bool>,
    table: String,
}

fn booking(version: u32) -> Form {
    Form::new("booking")
        .version(version)
        .ask("name", "What is your name?")
        .ask(
            "guests",
            Question::with(|answers| {
                let name: String = answers.of("name").unwrap_or_default();
                Reply::text(format!("For how many, {name}?"))
            })
            .parse::<u8>()
            .hint("A number, please."),
        )
        .ask("outside", Question::new("Outside?").yes_or_no())
        .ask(
            "heated",
            Question::new("Heated?")
                .yes_or_no()
                .only_if(|answers| answers.of("outside") == Some(true)),
        )
        .ask(
            "table",
            Question::new("1 Window, 2 Bar?").choice(["Window", "Bar"]),
        )
        .cancel(["never mind", "forget it"], "Maybe another time.")
        .expires_in(Duration::from_mins(30))
        .done(|_cx, booking: Booking| async move {
            if booking.guests == 13 {
                return Err(HandlerError::new("failed on request"));
            }
            let heated = booking
                .heated
                .map_or(String::new(), |heated| format!(", heated: {heated}"));
            Ok(format!(
                "{}: {} at {}, outside: {}{heated}",
                booking.name, booking.guests, booking.table, booking.outside
            ))
        })
}

async fn restaurant(version: u32) -> TestBot {
    TestBot::start(move || {
        let bot = Router::new()
            .form(text("book") | command("book"), booking(version))
            .otherwise("Write: book");
        App::builder().handler(bot)
    })
    .await
}

// An invalid answer repeats the question, and the form continues after a restart.
#[tokio::test]
async fn form_collects_valid_answers_and_calls_done() {
    let bot = restaurant(1).await;
    let ana = bot.whatsapp("+34600000001");
    let ben = bot.sms("+15550004444");
    ana.says("hello").await.assert_reply("Write: book");
    ana.says("Book").await.assert_reply("What is your name?");
    ben.says("hello").await.assert_reply("Write: book");
    ana.says(" Ana ").await.assert_reply("For how many, Ana?");
    bot.restart().await;
    ana.says("two").await.assert_reply("A number, please.");
    ana.says("２").await.assert_reply("Outside?");
    ana.says("perhaps").await.assert_reply("Outside?");
    ana.says("Sí").await.assert_reply("Heated?");
    ana.says("no").await.assert_reply("1 Window, 2 Bar?");
    ana.says("3").await.assert_reply("1 Window, 2 Bar?");
    ana.says("BAR!")
        .await
        .assert_reply("Ana: 2 at Bar, outside: true, heated: false");
    ana.says("hello").await.assert_reply("Write: book");
}

#[tokio::test]
async fn form_cancels_expires_and_restarts_on_new_version() {
    let version = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(1));
    let now = version.clone();
    let bot = TestBot::start(move || {
        let version = now.load(std::sync::atomic::Ordering::Relaxed);
        let bot = Router::new()
            .form(text("book"), booking(version))
            .otherwise("Write: book");
        App::builder().handler(bot)
    })
    .await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("book").await;
    ana.says("Ana").await;
    ana.says("Never  mind")
        .await
        .assert_reply("Maybe another time.");
    ana.says("2").await.assert_reply("Write: book");

    ana.says("book").await;
    ana.says("Ana").await;
    bot.advance(Duration::from_mins(29)).await;
    ana.says("2").await.assert_reply("Outside?");
    bot.advance(Duration::from_mins(31)).await;
    ana.says("no").await.assert_reply("Write: book");

    ana.says("book").await;
    ana.says("Ana").await.assert_reply("For how many, Ana?");
    version.store(2, std::sync::atomic::Ordering::Relaxed);
    bot.restart().await;
    ana.says("2").await.assert_reply("What is your name?");
    ana.says("Anabel")
        .await
        .assert_reply("For how many, Anabel?");
}

// The user answers the question that they got, even if the form would ask another one now.
#[tokio::test]
async fn answer_belongs_to_asked_question_after_form_change() {
    let has_changed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = has_changed.clone();
    let bot = TestBot::start(move || {
        let mut form = Form::new("order").ask("what", "What?");
        if now.load(std::sync::atomic::Ordering::Relaxed) {
            form = form.ask("when", "When?");
        }
        let form = form.ask("where", "Where?");
        let form = form.done(|_cx, answers: serde_json::Value| async move { answers.to_string() });
        App::builder().handler(Router::new().form(text("order"), form))
    })
    .await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("order").await.assert_reply("What?");
    ana.says("bread").await.assert_reply("Where?");
    has_changed.store(true, std::sync::atomic::Ordering::Relaxed);
    bot.restart().await;
    ana.says("home").await.assert_reply("When?");
    ana.says("now")
        .await
        .assert_reply(r#"{"what":"bread","when":"now","where":"home"}"#);
    // The form no longer has the open question, so the text does not answer the next one.
    ana.says("order").await.assert_reply("What?");
    ana.says("bread").await.assert_reply("When?");
    has_changed.store(false, std::sync::atomic::Ordering::Relaxed);
    bot.restart().await;
    ana.says("now").await.assert_reply("Where?");
}

// If the done handler fails, the user can answer the last question again or cancel the form.
#[tokio::test]
async fn failing_form_completion_keeps_last_question_open() {
    let bot = restaurant(1).await;
    let ana = bot.whatsapp("+34600000001");
    for text in ["book", "Ana", "13", "no"] {
        ana.says(text).await;
    }
    ana.says("1").await.assert_no_reply();
    ana.says("2").await.assert_no_reply();
    ana.says("forget it")
        .await
        .assert_reply("Maybe another time.");
}

#[tokio::test]
async fn form_accepts_media_and_location_answers() {
    #[derive(Deserialize)]
    struct Claim {
        photo: Photo,
        place: Place,
    }
    #[derive(Deserialize)]
    struct Photo {
        content_type: String,
    }
    #[derive(Deserialize)]
    struct Place {
        latitude: f64,
        label: Option<String>,
    }
    let bot = TestBot::start(|| {
        let claim = Form::new("claim")
            .ask("photo", Question::new("A photo, please.").media())
            .ask("place", Question::new("Where was it?").location())
            .done(|_cx, claim: Claim| async move {
                let label = claim.place.label.unwrap_or_default();
                format!(
                    "{} {} {label}",
                    claim.photo.content_type, claim.place.latitude
                )
            });
        App::builder().handler(Router::new().form(text("claim"), claim))
    })
    .await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("claim").await.assert_reply("A photo, please.");
    ana.says("which?").await.assert_reply("A photo, please.");
    let png = include_bytes!("picture.png");
    ana.sends_file("image/png", png, "")
        .await
        .assert_reply("Where was it?");
    ana.shares(52.5, 13.4, "Office")
        .await
        .assert_reply("image/png 52.5 Office");
}

/// Returns the number of regular checks of the store.
#[cfg(feature = "failpoints")]
fn checks(file: &std::path::Path) -> usize {
    let db = rusqlite::Connection::open(file).unwrap();
    db.query_row(
        "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'checks'",
        [],
        |row| row.get::<_, u32>(0),
    )
    .unwrap() as usize
}

// A message within a form costs two commits like any other: one accepts it, one saves its reply.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn form_step_adds_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.db");
    let url = format!("sqlite:{}", file.display());
    let bot = Router::new()
        .form(text("book"), booking(1))
        .otherwise("Write: book");
    let app = TestApp::build(&[("DATABASE_URL", url.as_str())], |app| app.handler(bot));
    app.wait_until_ready().await;
    let texts = [
        "hello",
        "hello again",
        "book",
        "Ana",
        "2",
        "hello?",
        "never mind",
    ];
    for (number, text) in (1..).zip(texts) {
        // The regular check of the store commits too, alone or together with a message, and counts itself. Its count is
        // read before the first count of commits and after the last one, so that no check in between is missed.
        let checks_before = checks(&file);
        let before = wal::commits(&file);
        app.send_without_waiting(Webhook::message(number, text))
            .await
            .twiml();
        let commits = wal::commits(&file) - before;
        let checks = checks(&file) - checks_before;
        assert!(
            (2..=2 + checks).contains(&commits),
            "{text}: {commits} commits, including up to {checks} checks"
        );
    }
}

/// Replies with the history: texts of the user in square brackets, texts of the bot in parentheses.
async fn parrot(cx: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    if message.body == "tell Ben" {
        let aside = ReplyMessage::text("psst").to("whatsapp:+34600000002");
        return Ok(Reply::text("told").and(aside));
    }
    if message.body == "badly" {
        return Err(HandlerError::new("failed on request"));
    }
    if cx.is_first_contact().await? {
        return Ok(Reply::text("welcome"));
    }
    let history = cx.history(6).await?;
    assert!(history.is_sorted_by_key(|entry| entry.at));
    let texts = history.iter().map(|entry| match entry.role {
        Role::User => format!("[{}]", entry.text),
        Role::Bot => format!("({})", entry.text),
    });
    Ok(Reply::text(texts.collect::<String>()))
}

async fn parrot_bot() -> TestBot {
    TestBot::start(|| App::builder().handler(parrot)).await
}

// The handler recognizes a first contact, and the history survives a restart.
#[tokio::test]
async fn history_returns_earlier_messages_of_conversation() {
    let bot = parrot_bot().await;
    let ana = bot.whatsapp("+34600000001");
    let ben = bot.whatsapp("+34600000002");
    ana.says("hi & <bye>").await.assert_reply("welcome");
    ben.says("hello").await.assert_reply("welcome");
    bot.restart().await;
    ana.says("one").await.assert_reply("[hi & <bye>](welcome)");
    ana.says("two")
        .await
        .assert_reply("[hi & <bye>](welcome)[one]([hi & <bye>](welcome))");
    // The handler gets the last six texts only.
    ana.says("three")
        .await
        .assert_reply_contains("(welcome)[one]");
    ben.says("one").await.assert_reply("[hello](welcome)");
}

// Messages to other users are not part of the history.
#[tokio::test]
async fn history_includes_late_replies_and_failed_messages() {
    let bot = parrot_bot().await;
    let ana = bot.whatsapp("+34600000001");
    let ben = bot.whatsapp("+34600000002");
    ben.says("hello").await.assert_reply("welcome");
    bot.set_handler_latency(Duration::from_secs(20)).await;
    ana.says("hi").await.assert_replied_via_rest("welcome");
    bot.set_handler_latency(Duration::ZERO).await;
    ana.says("badly").await;
    ana.says("tell Ben").await;
    ana.says("one")
        .await
        .assert_reply("[hi](welcome)[badly][tell Ben](told)");
}

#[tokio::test]
async fn debounced_messages_precede_their_reply_in_history() {
    let settings = [("REPLYHOOK__REPLY__DEBOUNCE_MS", "2000")];
    let sources = replyhook::config::Sources::default().with_env(settings);
    let bot = TestBot::start_with(sources, || App::builder().handler(parrot)).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await.assert_reply("welcome");
    ana.says_in_burst(&["one", "two", "three"])
        .await
        .assert_reply("[hi](welcome)")
        .assert_handler_runs(1);
    ana.says("four")
        .await
        .assert_reply("[hi](welcome)[one][two][three]([hi](welcome))");
}

#[tokio::test]
async fn new_context_is_first_contact_without_history() {
    let cx = Context::new(1, replyhook::Timestamp::UNIX_EPOCH);
    assert!(cx.is_first_contact().await.unwrap());
    assert!(cx.history(9).await.unwrap().is_empty());
    let form = replyhook::FormParams::from_iter([
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", "whatsapp:+15550001111"),
        ("To", "whatsapp:+15550002222"),
    ]);
    let at = replyhook::Timestamp::UNIX_EPOCH;
    let message = InboundMessage::parse(form, at).unwrap();
    let reply = parrot.handle(cx, message).await.unwrap();
    assert_eq!(reply, Reply::text("welcome"));
}
