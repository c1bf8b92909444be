//! What a bot remembers of a conversation: with the answer or not at all; and what was said in it.

use std::time::Duration;

use replyhook::handler::Speaker;
use replyhook::testing::TestBot;
use replyhook::{App, Context, Handler, HandlerError, InboundMessage, Reply, ReplyMessage};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
enum Order {
    #[default]
    Nothing,
    Dish(String),
}

/// Asks how many, forgets the question after an hour, and fails once it is told to.
async fn kitchen(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    let order = cx.state::<Order>().expires_in(Duration::from_hours(1));
    let orders = cx.state_named::<u32>("orders");
    match order.load().await? {
        Order::Nothing => {
            let dish = message.body.trim_end_matches(" badly").to_owned();
            order.save(&Order::Dish(dish)).await?;
            if message.body.ends_with(" badly") {
                return Err(HandlerError::new("as it was told"));
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
async fn a_state_survives_a_restart_and_belongs_to_its_conversation() {
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
async fn a_state_is_forgotten_when_its_time_is_up_and_others_are_not() {
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
async fn a_handler_that_fails_has_changed_nothing() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("soup badly").await;
    ana.says("cake").await.assert_reply("How many?");
    ana.says("1").await.assert_reply("1. 1 cake");
}

#[tokio::test]
async fn a_late_answer_is_remembered_as_one_in_time_is() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    bot.handler_takes(Duration::from_secs(20)).await;
    ana.says("soup")
        .await
        .assert_acknowledged_then_sent("How many?");
    bot.handler_takes(Duration::ZERO).await;
    ana.says("2").await.assert_reply("1. 2 soup");
    bot.redeliver().await.assert_same_answer();
    ana.says("cake").await.assert_reply("How many?");
}

/// Tells what was said, each text in brackets with who said it.
async fn parrot(cx: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    if message.body == "tell Ben" {
        let aside = ReplyMessage::text("psst").to("whatsapp:+34600000002");
        return Ok(Reply::text("told").and(aside));
    }
    if message.body == "badly" {
        return Err(HandlerError::new("as it was told"));
    }
    if cx.is_first_contact().await? {
        return Ok(Reply::text("welcome"));
    }
    let history = cx.history(6).await?;
    assert!(history.is_sorted_by_key(|said| said.at));
    let said = history.iter().map(|said| match said.by {
        Speaker::User => format!("[{}]", said.text),
        Speaker::Bot => format!("({})", said.text),
    });
    Ok(Reply::text(said.collect::<String>()))
}

async fn parrot_bot() -> TestBot {
    TestBot::start(|| App::builder().handler(parrot)).await
}

#[tokio::test]
async fn a_bot_knows_what_was_said_and_whether_anything_was() {
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
    // Of more than is asked for the last.
    ana.says("three")
        .await
        .assert_reply_contains("(welcome)[one]");
    ben.says("one").await.assert_reply("[hello](welcome)");
}

#[tokio::test]
async fn a_late_answer_and_a_failure_are_history_and_what_was_said_to_others_is_not() {
    let bot = parrot_bot().await;
    let ana = bot.whatsapp("+34600000001");
    let ben = bot.whatsapp("+34600000002");
    ben.says("hello").await.assert_reply("welcome");
    bot.handler_takes(Duration::from_secs(20)).await;
    ana.says("hi")
        .await
        .assert_acknowledged_then_sent("welcome");
    bot.handler_takes(Duration::ZERO).await;
    ana.says("badly").await;
    ana.says("tell Ben").await;
    ana.says("one")
        .await
        .assert_reply("[hi](welcome)[badly][tell Ben](told)");
}

#[tokio::test]
async fn quick_messages_are_one_turn_and_stand_before_its_answer() {
    let settings = [("REPLYHOOK__REPLY__MERGE_MS", "2000")];
    let sources = replyhook::config::Sources::default().with_env(settings);
    let bot = TestBot::start_with(sources, || App::builder().handler(parrot)).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await.assert_reply("welcome");
    ana.says_quickly(&["one", "two", "three"])
        .await
        .assert_reply("[hi](welcome)")
        .assert_handler_runs(1);
    ana.says("four")
        .await
        .assert_reply("[hi](welcome)[one][two][three]([hi](welcome))");
}

#[tokio::test]
async fn a_context_made_by_hand_is_a_first_contact_without_history() {
    let cx = Context::new(1, replyhook::Timestamp::UNIX_EPOCH);
    assert!(cx.is_first_contact().await.unwrap());
    assert!(cx.history(9).await.unwrap().is_empty());
    let form = replyhook::Form::from_iter([
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
