//! Keywords that Twilio handles itself on SMS, MMS and RCS.
//!
//! Sources: Twilio's "default handling of opt-out keywords"; its changelog of 2026-03-15 for RCS.

use crate::address::Channel;
use crate::folding::fold_phrase;

/// Keywords with which Twilio opts a user out.
pub const STOP: [&str; 8] = [
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "OPTOUT",
    "REVOKE",
];
/// Keywords with which Twilio opts a user in again.
pub const START: [&str; 3] = ["START", "YES", "UNSTOP"];
/// Keywords to which Twilio replies with a help text.
const HELP: [&str; 2] = ["HELP", "INFO"];

/// Returns the keyword that a text is on SMS and RCS. A user who answers with it unsubscribes, subscribes or gets Twilio's
/// help text.
///
/// ```
/// use replyhook::choice::sms_keyword;
///
/// assert_eq!(sms_keyword("Cancel!"), Some("CANCEL"));
/// assert_eq!(sms_keyword("🛑 Stop"), Some("STOP"));
/// assert_eq!(sms_keyword("Hélp"), Some("HELP"));
/// assert_eq!(sms_keyword("never mind"), None);
/// ```
pub fn sms_keyword(text: &str) -> Option<&'static str> {
    // Folded, since a user who takes "🛑 Stop!" types "stop", and an opt-out is read from the folded text.
    let text = fold_phrase(text);
    let keywords = STOP.into_iter().chain(START).chain(HELP);
    keywords
        .into_iter()
        .find(|keyword| text.eq_ignore_ascii_case(keyword))
}

/// Returns whether Twilio handles these keywords on a channel. MMS has the addresses of SMS.
pub fn has_sms_keywords(channel: &Channel) -> bool {
    matches!(channel, Channel::Sms | Channel::Rcs)
}
