//! Opt-out and opt-in keywords.
//!
//! A keyword counts only if it is the whole message. Case, character width, surrounding white space and one full stop
//! at the end do not matter. If Twilio sends `OptOutType`, that decides instead of the keywords.
//!
//! Source: Twilio's "default handling of opt-out keywords" for SMS. On other channels Twilio does not handle keywords.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use crate::address::Channel;
use crate::message::{InboundMessage, OptOutType};
use crate::store::{ConsentKeyword, ConsentSource};
use crate::twiml::Document;

/// Keywords with which Twilio itself opts a user out on SMS.
const SMS_STOP: [&str; 8] = [
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "OPTOUT",
    "REVOKE",
];
/// Keywords with which Twilio itself opts a user in again on SMS.
const SMS_START: [&str; 3] = ["START", "YES", "UNSTOP"];

/// The meaning of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    /// The user opts out.
    Stop,
    /// The user opts in again. The journal ignores it unless the user has opted out.
    Start,
}

/// The keywords of the channels on which Twilio does not handle keywords.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keywords {
    stop: Vec<String>,
    start: Vec<String>,
    /// Length in bytes of the longest text that can be a keyword, on any channel.
    longest: usize,
}

impl Keywords {
    /// Creates the keywords from two lists. A keyword may be a phrase of several words.
    pub(crate) fn new<S: AsRef<str>>(stop: &[S], start: &[S]) -> Self {
        let words = |texts: &[S]| {
            texts
                .iter()
                .map(|text| folded(text.as_ref()))
                .filter(|word| !word.is_empty())
                .collect()
        };
        let (stop, start): (Vec<String>, Vec<String>) = (words(stop), words(start));
        let twilios = SMS_STOP.iter().chain(&SMS_START).map(|word| word.len());
        let longest = stop
            .iter()
            .chain(&start)
            .map(String::len)
            .chain(twilios)
            .max();
        Self {
            stop,
            start,
            // NFKC folds one character of up to four bytes, such as a mathematical letter, to one ASCII byte. The last
            // four bytes are for a full stop, which may be full-width too.
            longest: longest.unwrap_or(0) * 4 + 4,
        }
    }

    /// Returns the keywords of the default settings. A test compares them with `default.toml`.
    #[cfg(feature = "rules")]
    pub(crate) fn usual() -> Self {
        Self::new(
            &["STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT", "REVOKE"],
            &["START", "UNSTOP"],
        )
    }

    /// Returns the meaning of a text on a channel, if the whole text is a keyword.
    fn meaning(&self, channel: &Channel, text: &str) -> Option<Keyword> {
        let text = text.trim();
        // Skip normalization for a text that cannot be a keyword. Most messages are longer.
        if text.len() > self.longest {
            return None;
        }
        let text = folded(text);
        // On SMS only Twilio's own keywords count. After one of them Twilio blocks all messages, whatever the settings
        // are. Any other word is a normal message to Twilio.
        let is_one_of = |fixed: &[&str], own: &[String]| match channel {
            Channel::Sms => fixed.contains(&text.as_str()),
            _ => own.contains(&text),
        };
        if text.is_empty() {
            None
        } else if is_one_of(&SMS_STOP, &self.stop) {
            Some(Keyword::Stop)
        } else if is_one_of(&SMS_START, &self.start) {
            Some(Keyword::Start)
        } else {
            None
        }
    }
}

/// The effect of a message on consent, and the confirmation for its author. Webhooks, `reconcile` and the examples of a
/// rules file share these rules.
pub(crate) struct ConsentRules {
    keywords: Keywords,
    replies: ConsentReplies,
}

/// Confirmations of a keyword, on the channels on which Twilio does not send one.
#[derive(Debug, Clone)]
pub(crate) struct ConsentReplies {
    pub(crate) stop: Document,
    pub(crate) start: Document,
}

impl ConsentRules {
    pub(crate) fn new(keywords: Keywords, replies: ConsentReplies) -> Self {
        Self { keywords, replies }
    }

    /// Returns the consent keyword of a message, if it is one. `OptOutType` takes precedence over the text.
    pub(crate) fn meaning(&self, message: &InboundMessage) -> Option<ConsentKeyword> {
        let how = ConsentSource::OptOutType;
        // No confirmation: with `OptOutType`, Twilio has already sent one.
        let answer = String::new();
        match message.opt_out_type {
            Some(OptOutType::Stop) => {
                return Some(ConsentKeyword::Stop {
                    source: how,
                    confirmation: answer,
                });
            }
            Some(OptOutType::Start) => {
                return Some(ConsentKeyword::Start {
                    source: how,
                    confirmation: answer,
                });
            }
            // HELP, or a type that this version does not know: Twilio has replied, so the handler must not reply too.
            Some(_) => return Some(ConsentKeyword::Help),
            None => {}
        }
        let channel = message.channel();
        let answer = |reply: &Document| {
            // Twilio confirms the keyword itself, and after a STOP it would block ours (error 21610).
            if answered_by_twilio(channel) {
                return String::new();
            }
            reply.to_stored().unwrap_or_default()
        };
        let how = ConsentSource::Keyword;
        let word = self.keywords.meaning(channel, &message.body)?;
        let replies = &self.replies;
        Some(match word {
            Keyword::Stop => ConsentKeyword::Stop {
                source: how,
                confirmation: answer(&replies.stop),
            },
            Keyword::Start => ConsentKeyword::Start {
                source: how,
                confirmation: answer(&replies.start),
            },
        })
    }
}

/// Returns whether Twilio itself confirms keywords on a channel.
fn answered_by_twilio(channel: &Channel) -> bool {
    *channel == Channel::Sms
}

/// Returns the form in which texts and keywords are compared.
fn folded(text: &str) -> String {
    // NFKC turns full-width letters and the full-width full stop into ASCII. ASCII texts need no copy.
    let text = match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    };
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text).trim_end();
    // A keyword may be a phrase; runs of white space between its words count as one space.
    let words = text.split_whitespace().collect::<Vec<_>>();
    words.join(" ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Keywords {
        Keywords::new(&["STOP", "STOPALL", "opt  out"], &["START", "UNSTOP"])
    }

    #[cfg(feature = "rules")]
    #[test]
    fn default_consent_keywords_match_default_toml() {
        let settings = include_str!("config/default.toml");
        let usual = Keywords::usual();
        for (key, words) in [("stop_words", &usual.stop), ("start_words", &usual.start)] {
            let line = format!("{key} = {words:?}");
            assert!(settings.contains(&line), "{line}");
        }
    }

    // Case, character width, surrounding white space and one final full stop do not matter.
    #[test]
    fn consent_keyword_matches_whole_message_only() {
        for text in [
            "STOP",
            "stop",
            " Stop. ",
            "ＳＴＯＰ",
            "ｓｔｏｐ．",
            "\u{a0}stop\n",
            "stop .",
            "Opt out.",
            "OPT\nOUT",
        ] {
            assert_eq!(
                words().meaning(&Channel::WhatsApp, text),
                Some(Keyword::Stop),
                "{text:?}"
            );
        }
        for text in [
            "",
            ".",
            "stop..",
            "please stop",
            "stop it",
            "stopp",
            "s t o p",
            "optout",
        ] {
            assert_eq!(words().meaning(&Channel::WhatsApp, text), None, "{text:?}");
        }
    }

    #[test]
    fn consent_keywords_are_twilios_on_sms_configured_elsewhere() {
        for text in SMS_STOP {
            assert_eq!(words().meaning(&Channel::Sms, text), Some(Keyword::Stop));
        }
        for text in ["CANCEL", "END", "QUIT", "YES"] {
            assert_eq!(words().meaning(&Channel::WhatsApp, text), None, "{text}");
        }
        assert_eq!(words().meaning(&Channel::Sms, "yes"), Some(Keyword::Start));
        assert_eq!(
            Keywords::new(&["basta"], &["avanti"]).meaning(&Channel::WhatsApp, "Basta."),
            Some(Keyword::Stop)
        );
        assert_eq!(
            Keywords::new(&["basta"], &["avanti"]).meaning(&Channel::Sms, "basta"),
            None
        );
    }
}
