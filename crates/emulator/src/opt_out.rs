//! Opt-out keywords on SMS, MMS and RCS. Twilio replies to STOP, START and HELP itself, and blocks outbound messages after
//! STOP. It still calls the webhook. On WhatsApp and Messenger, Twilio does not handle these keywords; the bot must.
//!
//! Source: Twilio's support article 223134027, and its changelog of 2026-03-15 for RCS.

use std::sync::Arc;

use super::engine::Engine;
use super::record::Record;
use super::send::send_twilio_confirmation;
use super::state::block_key;
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

/// Applies an opt-out keyword of an SMS or RCS message, and sends Twilio's confirmation.
pub(super) fn apply_opt_out_keyword(engine: &Arc<Engine>, message: &Record) {
    let address = Address::parse(message.user.as_str());
    let is_handled = matches!(address.channel(), Channel::Sms | Channel::Rcs);
    if !is_handled || !engine.options.handles_opt_outs {
        return;
    }
    // The whole body must be the keyword; "please stop" is an ordinary message.
    let word = message.body.trim().to_ascii_uppercase();
    let is_one_of = |words: &[&str]| words.contains(&word.as_str());
    let pair = block_key(&message.sender, &message.user);
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
