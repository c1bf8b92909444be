//! A shop's bot, to chat with in the browser: `cargo run --example shop`.

// The bot has its own file, so that a test can include it without this `main`.
#[path = "shop/bot.rs"]
mod bot;

use bot::Shop;
use replyhook::config::Sources;
use replyhook::{App, AppError, DevServer, DevServerOptions};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is printed for the user")]
async fn main() -> Result<(), AppError> {
    let shop = Shop {
        name: "Ana's flowers",
        orders: &[(42, "tulips")],
    };
    let builder = App::builder().handler(bot::bot(shop));
    // Orders come from the struct above, and messages from the emulator: no database, account or tunnel is needed.
    let mut dev_server =
        DevServer::start(builder, Sources::from_env(), DevServerOptions::default()).await?;
    println!("Chat with the bot: {}/", dev_server.emulator().url());
    // Keeps the process running: it completes only if the emulator or the app's worker ends.
    dev_server.wait().await
}
