//! The example `shop`, tested with the test kit.

#[path = "../../examples/shop/bot.rs"]
mod bot;

use replyhook::App;
use replyhook::testing::TestBot;

use self::bot::Shop;

async fn shop() -> TestBot {
    TestBot::start(|| {
        let shop = Shop {
            name: "Ana's flowers",
            orders: &[(42, "tulips")],
        };
        App::builder().handler(bot::bot(shop))
    })
    .await
}

#[tokio::test]
async fn shop_welcomes_users_and_finds_orders() {
    let bot = shop().await;
    let ben = bot.whatsapp("+34600000002").named("Ben");
    ben.says("what is this?")
        .await
        .assert_reply("Welcome to Ana's flowers, Ben! Write *order 42* or *book*.");
    ben.says("what is this?")
        .await
        .assert_reply("Write *order 42* or *book*.");
    ben.says("Order 42")
        .await
        .assert_replies(&["Order 42 (tulips) is on its way.", "Your receipt"])
        .assert_media(1);
    ben.says("/order 7")
        .await
        .assert_reply("There is no order 7.");
    let png = include_bytes!("picture.png");
    ben.sends_file("image/png", png, "")
        .await
        .assert_reply("1 picture(s), thank you!");
    ben.sends_file("application/pdf", b"%PDF-1.4", "")
        .await
        .assert_reply("We can look at pictures only.");
    ben.shares(40.42, -3.7, "")
        .await
        .assert_reply("We deliver there today.");
}

#[tokio::test]
async fn shop_booking_continues_across_restart() {
    let bot = shop().await;
    let ana = bot.whatsapp("+34600000001").named("Ana");
    ana.says("a table please")
        .await
        .assert_reply("What is your name?");
    ana.says("Ana").await.assert_reply("For how many?");
    bot.restart().await;
    ana.says("a few").await.assert_reply("A number, please.");
    ana.says("2").await.assert_reply("Outside?");
    ana.says("yes")
        .await
        .assert_reply("Booked for Ana: 2 outside.");
    for (text, reply) in [
        ("book", "What is your name?"),
        ("Ana", "For how many?"),
        ("12", "Booked for Ana: 12."),
    ] {
        ana.says(text).await.assert_reply(reply);
    }
}
