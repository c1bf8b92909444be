//! The shop's bot: routes, typed captures, a form, and state that all route handlers share.

use std::sync::Arc;
use std::time::Duration;

use replyhook::dialogue::{Form, Question};
use replyhook::route::{
    Captures, Router, Shared, any_media, command, first_contact, image, regex, text, within_km,
    words,
};
use replyhook::{Handler, InboundMessage, Media, Reply, ReplyMessage};
use serde::Deserialize;

/// State that the route handlers share.
// A real shop has a database pool here.
pub(crate) struct Shop {
    pub(crate) name: &'static str,
    pub(crate) orders: &'static [(u32, &'static str)],
}

#[derive(Deserialize)]
struct Booking {
    name: String,
    guests: u8,
    // `None` if the question was not asked: see `only_if` below.
    outside: Option<bool>,
}

async fn welcome(Shared(shop): Shared<Arc<Shop>>, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_else(|| "friend".to_owned());
    format!(
        "Welcome to {}, {name}! Write *order 42* or *book*.",
        shop.name
    )
}

// `Captures<u32>` takes the pattern's group or the text after the command, whichever of the two filters matched.
async fn order(Captures(id): Captures<u32>, Shared(shop): Shared<Arc<Shop>>) -> Reply {
    let Some((_, what)) = shop.orders.iter().find(|(known, _)| *known == id) else {
        return Reply::text(format!("There is no order {id}."));
    };
    let receipt = Media::url(format!("https://shop.example.com/receipts/{id}.png"));
    Reply::text(format!("Order {id} ({what}) is on its way."))
        .and(ReplyMessage::text("Your receipt").media(receipt))
}

async fn picture(message: InboundMessage) -> String {
    format!("{} picture(s), thank you!", message.media.len())
}

fn booking() -> Form {
    Form::new("booking")
        .ask("name", "What is your name?")
        .ask(
            "guests",
            Question::new("For how many?")
                .parse::<u8>()
                .hint("A number, please."),
        )
        .ask(
            "outside",
            Question::new("Outside?")
                .yes_or_no()
                // Questions are asked in order, so `guests` is answered by now.
                .only_if(|so_far| so_far.of::<u8>("guests") < Some(5)),
        )
        // Not the words CANCEL, STOP or END: on SMS they are Twilio's opt-out keywords.
        .cancel(["never mind", "forget it"], "Maybe another time.")
        .expires_in(Duration::from_mins(30))
        .done(|_cx, booking: Booking| async move {
            let place = if booking.outside == Some(true) {
                " outside"
            } else {
                ""
            };
            format!("Booked for {}: {}{place}.", booking.name, booking.guests)
        })
}

pub(crate) fn bot(shop: Shop) -> impl Handler {
    Router::new()
        // The first matching route replies, so the narrower filters come first, such as `image` before `any_media`. The
        // greeting comes last, so that a new user who writes "order 42" gets the order.
        .on(regex(r"^order (\d+)$") | command("order"), order)
        .form(words(["book", "table"]), booking())
        .on(image(), picture)
        .on(any_media(), "We can look at pictures only.")
        .on(within_km(40.4168, -3.7038, 10.0), "We deliver there today.")
        .on(first_contact() | text(["hi", "hello"]), welcome)
        .otherwise("Write *order 42* or *book*.")
        .with_state(Arc::new(shop))
}
