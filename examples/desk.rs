//! A bot of one's own with a whole Twilio beside it: `cargo run --example desk`, and chat in the browser.

use replyhook::config::Sources;
use replyhook::{App, Context, Desk, DeskOptions, InboundMessage, StartError};

async fn bot(_cx: Context, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_default();
    format!("Hello {name}, you said: {}", message.body)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is how its address is told")]
async fn main() -> Result<(), StartError> {
    let builder = App::builder().handler(bot);
    let mut desk = Desk::start(builder, Sources::from_env(), DeskOptions::default()).await?;
    println!("Chat with your bot: {}/", desk.emulator().url());
    desk.ended().await
}
