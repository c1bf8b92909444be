//! Photos of receipts are fetched from Twilio and kept in a folder.

use std::path::PathBuf;

use replyhook::route::{Router, Shared, image};
use replyhook::{App, Context, Handler, InboundMessage};

/// The name is made of a SID: nothing that a user writes is ever part of a path.
async fn keep(cx: Context, message: InboundMessage, Shared(folder): Shared<PathBuf>) -> String {
    let path = folder.join(message.message_sid.to_string());
    let photo = match cx.media(0).save(path).await {
        Ok(photo) => photo,
        // Whatever is wrong with the file, the message is answered.
        Err(error) => {
            tracing::warn!(%error, "a photo was not kept");
            return "Your photo did not reach me. Please send it once more.".to_owned();
        }
    };
    match photo.file_type.sniffed {
        Some("image/jpeg" | "image/png") => format!("Got it: {} bytes.", photo.length),
        _ => "That is no photo I can read.".to_owned(),
    }
}

pub(crate) fn bot(folder: PathBuf) -> impl Handler {
    Router::new()
        .on(image(), keep)
        .otherwise("Send a photo of your receipt.")
        .with_state(folder)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all("receipts")?;
    let bot = bot("receipts".into());
    Ok(App::builder().handler(bot).build()?.run().await?)
}
