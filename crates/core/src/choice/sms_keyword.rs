//! Keywords that Twilio handles itself on SMS and RCS, so that they cannot be answers.

use crate::address::Channel;

/// Opt-out, opt-in and help keywords. Source: Twilio's "default handling of opt-out keywords".
const KEYWORDS: [&str; 13] = [
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "OPTOUT",
    "REVOKE",
    "START",
    "YES",
    "UNSTOP",
    "HELP",
    "INFO",
];

/// Returns the keyword that a text is on SMS and RCS. A user who answers with it unsubscribes, subscribes or gets Twilio's
/// help text.
///
/// ```
/// use replyhook::choice::sms_keyword;
///
/// assert_eq!(sms_keyword("Cancel."), Some("CANCEL"));
/// assert_eq!(sms_keyword("never mind"), None);
/// ```
pub fn sms_keyword(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text).trim_end();
    KEYWORDS
        .into_iter()
        .find(|keyword| text.eq_ignore_ascii_case(keyword))
}

/// Returns whether Twilio handles these keywords on a channel.
#[doc(hidden)]
pub fn has_sms_keywords(channel: &Channel) -> bool {
    matches!(channel, Channel::Sms | Channel::Rcs)
}
