//! What a bot remembers of a conversation: with the answer or not at all.

use std::time::Duration;

use replyhook::testing::TestBot;
use replyhook::{App, Context, HandlerError, InboundMessage};
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
