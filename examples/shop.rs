//! A shop's bot: `cargo run --example shop`, and chat with it in the browser.

#[path = "shop/bot.rs"]
mod bot;

use bot::Shop;
use replyhook::config::Sources;
use replyhook::{App, Desk, DeskOptions, StartError};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is how its address is told")]
async fn main() -> Result<(), StartError> {
    let shop = Shop {
        name: "Ana's flowers",
        orders: &[(42, "tulips")],
    };
    let builder = App::builder().handler(bot::bot(shop));
    let mut desk = Desk::start(builder, Sources::from_env(), DeskOptions::default()).await?;
    println!("Chat with the bot: {}/", desk.emulator().url());
    desk.ended().await
}
