//! A bot with an emulated Twilio in one process, to chat with in the browser: `cargo run --example dev_server`.

use replyhook::config::Sources;
use replyhook::{App, AppError, Context, DevServer, DevServerOptions, InboundMessage};

async fn bot(_cx: Context, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_default();
    format!("Hello {name}, you said: {}", message.body)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is printed for the user")]
async fn main() -> Result<(), AppError> {
    let builder = App::builder().handler(bot);
    // The settings of Twilio and `PUBLIC_URL` in the environment are ignored: the emulator has its own account.
    let mut dev_server =
        DevServer::start(builder, Sources::from_env(), DevServerOptions::default()).await?;
    println!("Chat with your bot: {}/", dev_server.emulator().url());
    // Keeps the process running: it completes only if the emulator or the app's worker ends.
    dev_server.wait().await
}
