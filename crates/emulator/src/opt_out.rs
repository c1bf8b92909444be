//! Opt-out keywords on SMS. Twilio replies to STOP, START and HELP itself, and blocks outbound messages after STOP. It
//! still calls the webhook. On WhatsApp, Twilio does not handle these keywords; the bot must.
//!
//! Source: Twilio's support article 223134027.

use std::sync::Arc;

use super::engine::Engine;
use super::record::Record;
use super::send::send_twilio_confirmation;
use replyhook_core::address::{Address, Channel};

const STOP: [&str; 8] = [
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "OPTOUT",
    "REVOKE",
];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];
const HELP: [&str; 2] = ["HELP", "INFO"];

/// Applies an opt-out keyword of an SMS, and sends Twilio's confirmation.
pub(super) fn apply_opt_out_keyword(engine: &Arc<Engine>, message: &Record) {
    if *Address::parse(message.user.as_str()).channel() != Channel::Sms {
        return;
    }
    // The whole body must be the keyword; "please stop" is an ordinary message.
    let word = message.body.trim().to_ascii_uppercase();
    let is_one_of = |words: &[&str]| words.contains(&word.as_str());
    let pair = (message.sender.clone(), message.user.clone());
    // No reply to STOP after STOP, to START without STOP, or to HELP while opted out.
    let confirmation = if is_one_of(&STOP) {
        let is_new = engine.state().blocked.insert(pair);
        is_new.then_some(
            "You have successfully been unsubscribed. You will not receive any more messages from this number. \
             Reply START to resubscribe.",
        )
    } else if is_one_of(&START) {
        let was_blocked = engine.state().blocked.remove(&pair);
        was_blocked.then_some(
            "You have successfully been re-subscribed to messages from this number. Reply HELP for help. \
             Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
        )
    } else if is_one_of(&HELP) && !engine.state().blocked.contains(&pair) {
        Some("Reply STOP to unsubscribe. Msg&Data Rates May Apply.")
    } else {
        None
    };
    if let Some(text) = confirmation {
        send_twilio_confirmation(engine, &message.sender, &message.user, text);
    }
}
