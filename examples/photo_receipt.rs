//! A bot that fetches photos of receipts from Twilio and saves them in a folder.

use std::path::PathBuf;

use replyhook::route::{Router, Shared, image};
use replyhook::{App, Context, Handler, InboundMessage};

/// Saves the first file of the message, and reports its size.
async fn save_receipt(
    cx: Context,
    message: InboundMessage,
    Shared(folder): Shared<PathBuf>,
) -> String {
    // Named by the SID, which Twilio assigns. A name or text of the user in a path could lead outside of the folder.
    let path = folder.join(message.message_sid.to_string());
    let photo = match cx.media(0).save(path).await {
        Ok(photo) => photo,
        // A reply instead of `?`: after an error Twilio would get a 500 and call the fallback URL. The user would not
        // learn that the photo is missing.
        Err(error) => {
            tracing::warn!(%error, "could not save a photo");
            return "Your photo did not reach me. Please send it once more.".to_owned();
        }
    };
    // The type found in the file's bytes. The declared type may be wrong.
    match photo.file_type.sniffed {
        Some("image/jpeg" | "image/png") => format!("Got it: {} bytes.", photo.length),
        _ => "That is not a photo I can read.".to_owned(),
    }
}

pub(crate) fn bot(folder: PathBuf) -> impl Handler {
    Router::new()
        .on(image(), save_receipt)
        .otherwise("Send a photo of your receipt.")
        .with_state(folder)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `save` does not create folders.
    std::fs::create_dir_all("receipts")?;
    let bot = bot("receipts".into());
    Ok(App::builder().handler(bot).build()?.run().await?)
}
