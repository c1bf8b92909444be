//! The ten-line bot of the README: it repeats what the user wrote.

use replyhook::{App, Context, InboundMessage, StartError};

async fn bot(_cx: Context, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_default();
    format!("Hello {name}, you said: {}", message.body)
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    App::builder().handler(bot).build()?.run().await
}
