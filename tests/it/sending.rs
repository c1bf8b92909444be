//! Sending first: once, within window and consent, at a pace, by program, by command and from a file. Twilio is
//! [`FakeTwilio`], and its phone is the judge.

mod command;
mod outgoing;
mod program;
mod rows;
mod scheduled;
mod templates;
mod typing;

const ANA: &str = "whatsapp:+15550001111";
const BEN: &str = "whatsapp:+15550003333";
const US: &str = "whatsapp:+15550002222";
const TEMPLATE: &str = "HX00000000000000000000000000000001";
const SERVICE: &str = "MG00000000000000000000000000000001";
/// Nobody is there to be asked about templates, so that Twilio decides.
const NOBODY: (&str, &str) = ("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9");
