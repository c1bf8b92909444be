//! The ten-line bot of the README: it repeats what the user wrote.

use replyhook::{App, AppError, Context, InboundMessage};

async fn bot(_cx: Context, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_default();
    format!("Hello {name}, you said: {}", message.body)
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    App::builder().handler(bot).build()?.run().await
}
