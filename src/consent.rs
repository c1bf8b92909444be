//! What a user says about being written to at all: the words, and nothing else of a message, decide.
//!
//! A word counts when it is the whole message, whatever its case or width, with white space around it and one full stop
//! after it. `OptOutType`, where Twilio sends it, counts before any word.
//!
//! Source: Twilio's "default handling of opt-out keywords" for SMS; on other channels Twilio passes words through.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use crate::address::Channel;
use crate::message::{InboundMessage, OptOutType};
use crate::store::{ArrivalConsent, ConsentHow};
use crate::twiml::Document;

/// Words that Twilio itself obeys on SMS.
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
/// Words with which Twilio lets messages through again on SMS.
const SMS_START: [&str; 3] = ["START", "YES", "UNSTOP"];

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// No more messages.
    Stop,
    /// Messages again; only for somebody who has opted out.
    Start,
}

/// The words that count where Twilio has none of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    stop: Vec<String>,
    start: Vec<String>,
    /// Bytes of the longest text that can be one of them.
    longest: usize,
}

impl Words {
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
            // A character may be written wide, and be followed by a full stop that is.
            longest: longest.unwrap_or(0) * 4 + 4,
        }
    }

    /// Those of a server whose settings say nothing of them.
    #[cfg(feature = "rules")]
    pub(crate) fn usual() -> Self {
        Self::new(
            &["STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT", "REVOKE"],
            &["START", "UNSTOP"],
        )
    }

    /// Whether a message opts out (`Some(true)`), in again, or neither.
    #[cfg(feature = "rules")]
    pub(crate) fn opts_out(&self, message: &InboundMessage) -> Option<bool> {
        let word = self.meaning(message.channel(), &message.body)?;
        Some(word == Word::Stop)
    }

    /// What a whole text means on a channel, if it is one of the words.
    fn meaning(&self, channel: &Channel, text: &str) -> Option<Word> {
        let text = text.trim();
        // Most texts are longer, and need no closer look.
        if text.len() > self.longest {
            return None;
        }
        let text = folded(text);
        let is_one_of = |fixed: &[&str], own: &[String]| match channel {
            Channel::Sms => fixed.contains(&text.as_str()),
            _ => own.contains(&text),
        };
        if text.is_empty() {
            None
        } else if is_one_of(&SMS_STOP, &self.stop) {
            Some(Word::Stop)
        } else if is_one_of(&SMS_START, &self.start) {
            Some(Word::Start)
        } else {
            None
        }
    }
}

/// What a message does to consent, and what its author is told: the same for a webhook and for a message that is fetched
/// later.
pub(crate) struct ConsentRules {
    words: Words,
    replies: RwLock<ConsentReplies>,
}

/// What is answered to a word, on channels where Twilio answers none.
#[derive(Debug, Clone)]
pub(crate) struct ConsentReplies {
    pub(crate) stop: Document,
    pub(crate) start: Document,
}

impl ConsentRules {
    pub(crate) fn new(words: Words, replies: ConsentReplies) -> Self {
        Self {
            words,
            replies: RwLock::new(replies),
        }
    }

    /// Answers otherwise from now on.
    #[cfg(feature = "rules")]
    pub(crate) fn set_replies(&self, replies: ConsentReplies) {
        *self.replies.write().unwrap_or_else(PoisonError::into_inner) = replies;
    }

    /// `OptOutType` decides where Twilio sends it, and then Twilio has answered; else a word does.
    pub(crate) fn meaning(&self, message: &InboundMessage) -> Option<ArrivalConsent> {
        let how = ConsentHow::OptOutType;
        let answer = String::new();
        match message.opt_out_type {
            Some(OptOutType::Stop) => return Some(ArrivalConsent::Stop { how, answer }),
            Some(OptOutType::Start) => return Some(ArrivalConsent::Start { how, answer }),
            // HELP, or a kind that Twilio has added: it has been answered, and is no word for the bot.
            Some(_) => return Some(ArrivalConsent::Help),
            None => {}
        }
        let channel = message.channel();
        let answer = |reply: &Document| {
            if answered_by_twilio(channel) {
                return String::new();
            }
            reply.to_saved().unwrap_or_default()
        };
        let how = ConsentHow::Keyword;
        let word = self.words.meaning(channel, &message.body)?;
        let replies = self.replies.read().unwrap_or_else(PoisonError::into_inner);
        Some(match word {
            Word::Stop => ArrivalConsent::Stop {
                how,
                answer: answer(&replies.stop),
            },
            Word::Start => ArrivalConsent::Start {
                how,
                answer: answer(&replies.start),
            },
        })
    }
}

/// Whether Twilio answers consent words on a channel by itself.
pub(crate) fn answered_by_twilio(channel: &Channel) -> bool {
    *channel == Channel::Sms
}

fn folded(text: &str) -> String {
    let text = match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    };
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text).trim_end();
    // A phrase counts however its words are spaced.
    let words = text.split_whitespace().collect::<Vec<_>>();
    words.join(" ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::new(&["STOP", "STOPALL", "opt  out"], &["START", "UNSTOP"])
    }

    #[cfg(feature = "rules")]
    #[test]
    fn the_usual_words_are_those_of_the_settings() {
        let settings = include_str!("config/default.toml");
        let usual = Words::usual();
        for (key, words) in [("stop_words", &usual.stop), ("start_words", &usual.start)] {
            let line = format!("{key} = {words:?}");
            assert!(settings.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_word_counts_alone_in_any_case_and_width_with_one_full_stop() {
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
                Some(Word::Stop),
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
    fn sms_has_twilios_words_and_other_channels_their_own() {
        for text in SMS_STOP {
            assert_eq!(words().meaning(&Channel::Sms, text), Some(Word::Stop));
        }
        for text in ["CANCEL", "END", "QUIT", "YES"] {
            assert_eq!(words().meaning(&Channel::WhatsApp, text), None, "{text}");
        }
        assert_eq!(words().meaning(&Channel::Sms, "yes"), Some(Word::Start));
        assert_eq!(
            Words::new(&["basta"], &["avanti"]).meaning(&Channel::WhatsApp, "Basta."),
            Some(Word::Stop)
        );
        assert_eq!(
            Words::new(&["basta"], &["avanti"]).meaning(&Channel::Sms, "basta"),
            None
        );
    }
}
