//! The bot itself: routes, typed captures, a form, and what all answers share.

use std::sync::Arc;
use std::time::Duration;

use replyhook::dialogue::{Form, Question};
use replyhook::route::{
    Captures, Router, Shared, any_media, command, first_contact, image, near, regex, text, words,
};
use replyhook::{Handler, InboundMessage, Media, Reply, ReplyMessage};
use serde::Deserialize;

/// What the shop knows; a real one has a database here.
pub(crate) struct Shop {
    pub(crate) name: &'static str,
    pub(crate) orders: &'static [(u32, &'static str)],
}

#[derive(Deserialize)]
struct Booking {
    name: String,
    guests: u8,
    outside: Option<bool>,
}

async fn welcome(Shared(shop): Shared<Arc<Shop>>, message: InboundMessage) -> String {
    let name = message.profile_name.unwrap_or_else(|| "friend".to_owned());
    format!(
        "Welcome to {}, {name}! Write *order 42* or *book*.",
        shop.name
    )
}

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
                .or("A number, please."),
        )
        .ask(
            "outside",
            Question::new("Outside?")
                .yes_or_no()
                .only_if(|so_far| so_far.of::<u8>("guests") < Some(5)),
        )
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
        .on(regex(r"^order (\d+)$") | command("order"), order)
        .form(words(["book", "table"]), booking())
        .on(image(), picture)
        .on(any_media(), "We can look at pictures only.")
        .on(near(40.4168, -3.7038, 10.0), "We deliver there today.")
        .on(first_contact() | text(["hi", "hello"]), welcome)
        .otherwise("Write *order 42* or *book*.")
        .with_state(Arc::new(shop))
}
