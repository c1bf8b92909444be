//! Outbound messages from the library, the command and CSV files: idempotency, window, consent and rate limit. Most
//! tests run against `FakeTwilio` and check its phone.

mod command;
mod outbound_commands;
mod program;
mod rows;
#[cfg(feature = "testing")]
mod scheduled;
mod templates;
mod typing;

const ANA: &str = "whatsapp:+15550001111";
const BEN: &str = "whatsapp:+15550003333";
const SENDER: &str = "whatsapp:+15550002222";
const TEMPLATE: &str = "HX00000000000000000000000000000001";
const SERVICE: &str = "MG00000000000000000000000000000001";
/// Unreachable Content API, so that templates are not checked before sending.
const UNREACHABLE_CONTENT_API: (&str, &str) =
    ("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9");
