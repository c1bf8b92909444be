//! A bot that also sends reminders: outbound messages from an approved template, each queued once per idempotency key.

use std::time::Duration;

use replyhook::outbound::{SendError, SendReceipt};
use replyhook::twilio::NewMessage;
use replyhook::{App, Handler, OutboundClient};

// Replace it with your template's Content SID, from Twilio's console or `replyhook templates`.
const TEMPLATE: &str = "HX00000000000000000000000000000001";
const SHOP: &str = "whatsapp:+14155238886";

// The example has one appointment in its source. A real program reads them from a database.
pub(crate) struct Appointment {
    pub(crate) number: u32,
    pub(crate) who: &'static str,
    pub(crate) time: &'static str,
}

/// Queues the reminder of an appointment. A further call, even after a crash, queues nothing.
pub(crate) async fn remind(
    outbound: &OutboundClient,
    appointment: &Appointment,
) -> Result<SendReceipt, SendError> {
    let Appointment { number, who, time } = appointment;
    // A template, because the customer service window is closed unless the user wrote in the last 24 hours.
    let reminder = NewMessage::template(*who, TEMPLATE, [("1", *time)]).from(SHOP);
    // The idempotency key identifies the appointment, and not the time or the attempt. So a further call sends nothing.
    let key = format!("reminder-{number}");
    outbound.send_once(&key, &reminder).await
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
    // Taken before `run`, which consumes the app.
    let outbound = app.outbound();
    tokio::spawn(async move {
        loop {
            // The pause comes first, because the store is not open before `run` has opened it.
            tokio::time::sleep(Duration::from_mins(1)).await;
            for appointment in &tomorrow {
                // Every minute for every appointment: `remind` sends each one only once. A rejected message does not
                // use up its key, so a reminder without opt-in goes out in the round after the user has opted in.
                if let Err(error) = remind(&outbound, appointment).await {
                    tracing::warn!(appointment.number, %error, "could not queue a reminder");
                }
            }
        }
    });
    Ok(app.run().await?)
}
