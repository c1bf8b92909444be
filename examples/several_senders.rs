//! A shop and its repairs, each with a number of its own, in one process.
//!
//! Senders of other accounts need only their tokens: `twilio.accounts.<AccountSid>.auth_token`.

use replyhook::route::{Filter, Router, text, when};
use replyhook::{App, Handler, StartError};

/// The desk's numbers; yours stand here.
const SHOP: &str = "whatsapp:+14155238886";
const REPAIRS: &str = "+15005550006";

fn sent_to(sender: &'static str) -> Filter {
    when("sent to", move |message| message.to.as_str() == sender)
}

pub(crate) fn bot() -> impl Handler {
    let shop = Router::new()
        .on(text("hours"), "We sell from nine to six.")
        .otherwise("Ana's bicycles. Write *hours*.");
    let repairs = Router::new()
        .on(text("hours"), "We mend from seven to three.")
        .otherwise("Ana's repairs. Write *hours*.");
    Router::new()
        .nest(sent_to(SHOP), shop)
        .nest(sent_to(REPAIRS), repairs)
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    App::builder().handler(bot()).build()?.run().await
}
