//! Reminders by an approved template, each of them once, beside a bot that answers.

use std::time::Duration;

use replyhook::sending::{Outgoing, SendError};
use replyhook::twilio::NewMessage;
use replyhook::{App, Handler, Sender};

/// Yours: Twilio's console, or `replyhook templates`, tells its SID.
const TEMPLATE: &str = "HX00000000000000000000000000000001";
const SHOP: &str = "whatsapp:+14155238886";

/// Yours come out of a database.
pub(crate) struct Appointment {
    pub(crate) number: u32,
    pub(crate) who: &'static str,
    pub(crate) time: &'static str,
}

/// However often it is called, also after a crash: the key sends it once.
pub(crate) async fn remind(
    sender: &Sender,
    appointment: &Appointment,
) -> Result<Outgoing, SendError> {
    let Appointment { number, who, time } = appointment;
    let reminder = NewMessage::template(*who, TEMPLATE, [("1", *time)]).from(SHOP);
    let key = format!("reminder-{number}");
    sender.send_once(&key, &reminder).await
}

pub(crate) fn bot() -> impl Handler {
    replyhook::route::Router::new().otherwise("See you then!")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tomorrow = [Appointment {
        number: 42,
        who: "whatsapp:+15550001111",
        time: "12:00",
    }];
    let app = App::builder().handler(bot()).build()?;
    let sender = app.sender();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            for appointment in &tomorrow {
                if let Err(error) = remind(&sender, appointment).await {
                    tracing::warn!(appointment.number, %error, "no reminder");
                }
            }
        }
    });
    Ok(app.run().await?)
}
