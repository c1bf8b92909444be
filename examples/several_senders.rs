//! Two bots in one process: a shop and its repairs, each with its own sender.
//!
//! Senders of other accounts only need their auth tokens: `twilio.accounts.<AccountSid>.auth_token`.

use replyhook::route::{Filter, Router, matches, text};
use replyhook::{App, AppError, Handler};

// The emulator's senders, so that the bots can be tried with `DevServer`. Write your own here.
const SHOP: &str = "whatsapp:+14155238886";
const REPAIRS: &str = "+15005550006";

fn sent_to(sender: &'static str) -> Filter {
    // Compared with the channel prefix: the same number on SMS and WhatsApp is two senders.
    matches("sent to", move |message| message.to.as_str() == sender)
}

pub(crate) fn bot() -> impl Handler {
    let shop = Router::new()
        .on(text("hours"), "We sell from nine to six.")
        .otherwise("Ana's bicycles. Write *hours*.");
    let repairs = Router::new()
        .on(text("hours"), "We repair from seven to three.")
        .otherwise("Ana's repairs. Write *hours*.");
    Router::new()
        .nest(sent_to(SHOP), shop)
        .nest(sent_to(REPAIRS), repairs)
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    App::builder().handler(bot()).build()?.run().await
}
