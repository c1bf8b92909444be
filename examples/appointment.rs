//! A bot that books an appointment with a form: three questions, whose typed answers survive a restart.

use jiff::civil::Date;
use replyhook::dialogue::{Form, Question};
use replyhook::route::{Router, words};
use replyhook::{App, AppError, Handler};
use serde::Deserialize;

// The fields are named as in `ask` below. The answers are deserialized into this type once all are given.
#[derive(Deserialize)]
struct Appointment {
    what: String,
    day: Date,
    early: bool,
}

pub(crate) fn bot() -> impl Handler {
    let form = Form::new("appointment")
        .ask(
            "what",
            Question::new("1 a cut, or 2 a shave?").choice(["cut", "shave"]),
        )
        .ask(
            "day",
            Question::new("Which day?")
                .parse::<Date>()
                .hint("A day such as 2026-12-24, please."),
        )
        .ask("early", Question::new("In the morning?").yes_or_no())
        // Not the words CANCEL, STOP or END: on SMS they are Twilio's opt-out keywords.
        .cancel("never mind", "Maybe another time.")
        .done(|_cx, booked: Appointment| async move {
            let Appointment { what, day, early } = booked;
            let time = if early { "09:00" } else { "15:00" };
            format!("Your {what}: {}, {time}.", day.strftime("%A, %-d %B"))
        });
    Router::new()
        .form(words(["appointment", "book"]), form)
        .otherwise("Write *book* for an appointment.")
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    App::builder().handler(bot()).build()?.run().await
}
