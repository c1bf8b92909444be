//! Opt-out and opt-in keywords.
//!
//! A keyword counts only if it is the whole message. Texts are folded as those of rules are, so that case, accents, width,
//! punctuation, formatting marks and invisible characters do not matter. If Twilio sends `OptOutType`, that decides
//! instead of the keywords.
//!
//! Sources: Twilio's "default handling of opt-out keywords" for SMS, MMS and, since 2026-03-15, RCS; its help article about
//! toll-free numbers, whose carriers know fewer words. On other channels Twilio does not handle keywords.

use replyhook_core::sms_keywords::{self, has_sms_keywords};

use crate::address::{Address, Channel, Identity};
use crate::choice::{answer_texts, title_keyword};
use crate::folding::fold_phrase;
use crate::message::{InboundMessage, OptOutType};
use crate::store::{ConsentKeyword, ConsentSource};
use crate::twiml::Document;

/// Keywords with which the carriers of toll-free numbers opt a user out.
const TOLL_FREE_STOP: [&str; 1] = ["STOP"];
/// Keywords with which they opt a user in again.
const TOLL_FREE_START: [&str; 2] = ["START", "UNSTOP"];
/// Area codes of toll-free numbers in the numbering plan of +1.
const TOLL_FREE_AREAS: [&str; 7] = ["800", "833", "844", "855", "866", "877", "888"];

/// The side that handles opt-out keywords on SMS, MMS and RCS.
///
/// ```
/// use replyhook::config::{Settings, SmsKeywords, Sources};
///
/// let sources = Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "https://bot.example.com"),
///     ("REPLYHOOK__CONSENT__SMS", "own"),
/// ]);
/// # #[cfg(feature = "sqlite")]
/// assert_eq!(Settings::load(&sources)?.settings.consent.sms, SmsKeywords::Own);
/// # Ok::<(), replyhook::config::Problems>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsKeywords {
    /// Twilio: it confirms its keywords and blocks the user.
    Twilio,
    /// This server: Twilio's keywords are switched off or changed, and the words and confirmations are those of the
    /// settings.
    Own,
}

/// The meaning of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    /// The user opts out.
    Stop,
    /// The user opts in again. The journal ignores it unless the user has opted out.
    Start,
}

/// Opt-out and opt-in keywords in their folded form.
#[derive(Debug, Clone, Default)]
struct KeywordLists {
    stop: Vec<String>,
    start: Vec<String>,
    /// Number of letters and digits of the longest keyword. Counted once, and not for each message.
    max_letters: usize,
}

impl KeywordLists {
    fn new<S: AsRef<str>>(stop: &[S], start: &[S]) -> Self {
        let phrases = |texts: &[S]| -> Vec<String> {
            let folded = texts.iter().map(|text| fold_phrase(text.as_ref()));
            folded.filter(|phrase| !phrase.is_empty()).collect()
        };
        let (stop, start) = (phrases(stop), phrases(start));
        let lengths = stop.iter().chain(&start).map(|phrase| letters(phrase));
        Self {
            max_letters: lengths.max().unwrap_or(0),
            stop,
            start,
        }
    }

    fn meaning(&self, phrase: &str) -> Option<Keyword> {
        let has = |phrases: &[String]| phrases.iter().any(|known| known == phrase);
        // `stop` first: a phrase in both lists, which the settings reject, must not opt a user in.
        if has(&self.stop) {
            Some(Keyword::Stop)
        } else if has(&self.start) {
            Some(Keyword::Start)
        } else {
            None
        }
    }
}

/// The keywords of all channels.
#[derive(Debug, Clone)]
pub(crate) struct Keywords {
    /// Keywords on SMS, MMS and RCS.
    sms: KeywordLists,
    sms_side: SmsKeywords,
    /// Keywords on the channels on which Twilio does not handle keywords.
    others: KeywordLists,
}

impl Keywords {
    /// Creates the keywords from two lists, with Twilio's keywords on SMS, MMS and RCS. A keyword may be a phrase of
    /// several words.
    pub(crate) fn new<S: AsRef<str>>(stop: &[S], start: &[S]) -> Self {
        Self {
            sms: KeywordLists::new(&sms_keywords::STOP, &sms_keywords::START),
            sms_side: SmsKeywords::Twilio,
            others: KeywordLists::new(stop, start),
        }
    }

    /// Replaces Twilio's keywords on SMS, MMS and RCS, which this server then confirms.
    #[must_use]
    pub(crate) fn with_own_sms<S: AsRef<str>>(mut self, stop: &[S], start: &[S]) -> Self {
        self.sms = KeywordLists::new(stop, start);
        self.sms_side = SmsKeywords::Own;
        self
    }

    /// Returns the keywords of the default settings. A test compares them with `default.toml`.
    #[cfg(feature = "rules")]
    pub(crate) fn usual() -> Self {
        Self::new(
            &[
                "STOP",
                "STOP ALL",
                "STOPALL",
                "UNSUBSCRIBE",
                "OPT OUT",
                "OPTOUT",
                "REVOKE",
            ],
            &["START", "UNSTOP"],
        )
    }

    /// Returns whether Twilio handles the keywords of a channel.
    fn are_twilios(&self, channel: &Channel) -> bool {
        self.sms_side == SmsKeywords::Twilio && has_sms_keywords(channel)
    }

    /// Returns whether a text that a bot offers, or a shorter one that is taken for it, is a keyword on the channels on which
    /// Twilio does not handle keywords.
    #[cfg(feature = "rules")]
    pub(crate) fn has_on_other_channels(&self, text: &str) -> bool {
        let mut answers = answer_texts(text).into_iter();
        answers.any(|text| self.others.meaning(&fold_phrase(&text)).is_some())
    }

    /// Returns the meaning of a text that a user has sent to a sender, if the whole text is a keyword.
    fn meaning(&self, sender: &Address, text: &str) -> Option<Keyword> {
        let is_sms = has_sms_keywords(sender.channel());
        let lists = if is_sms { &self.sms } else { &self.others };
        if has_more_letters(text, lists.max_letters) {
            return None;
        }
        let phrase = fold_phrase(text);
        let keyword = lists.meaning(&phrase)?;
        // The carriers would continue to block the user.
        let is_ignored = is_sms
            && self.sms_side == SmsKeywords::Twilio
            && keyword == Keyword::Start
            && is_toll_free(sender)
            && !is_one_of(&TOLL_FREE_START, &phrase);
        (!is_ignored).then_some(keyword)
    }

    /// Returns whether Twilio or a carrier confirms the keyword in a text.
    // A decorated keyword, such as `stop!`, is an ordinary message to Twilio, which then neither confirms it nor blocks our
    // confirmation.
    fn is_confirmed_by_twilio(&self, sender: &Address, text: &str, keyword: Keyword) -> bool {
        if !self.are_twilios(sender.channel()) {
            return false;
        }
        let known: &[&str] = match (keyword, is_toll_free(sender)) {
            (Keyword::Stop, false) => &sms_keywords::STOP,
            (Keyword::Stop, true) => &TOLL_FREE_STOP,
            (Keyword::Start, false) => &sms_keywords::START,
            (Keyword::Start, true) => &TOLL_FREE_START,
        };
        is_one_of(known, text.trim())
    }
}

fn is_one_of(known: &[&str], text: &str) -> bool {
    known.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Returns whether a sender is a toll-free number, whose carriers handle opt-outs.
///
/// ```
/// use replyhook::Address;
///
/// assert!(replyhook::config::is_toll_free(&Address::parse("+18885550100")));
/// assert!(!replyhook::config::is_toll_free(&Address::parse("+15550001111")));
/// ```
pub fn is_toll_free(sender: &Address) -> bool {
    let is_number = *sender.channel() == Channel::Sms && sender.identity() == Identity::Phone;
    let area = sender.id().strip_prefix("+1").and_then(|id| id.get(..3));
    is_number && area.is_some_and(|area| TOLL_FREE_AREAS.contains(&area))
}

/// Returns the number of letters and digits of a text.
fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphanumeric()).count()
}

/// Returns whether a text has more letters than a folded text with at most `max` of them can have before folding.
// Reads only a few characters of an ordinary message. Decorations contain no letters, so they may be long.
fn has_more_letters(text: &str, max: usize) -> bool {
    // Folding composes a Hangul syllable from up to three letters, and ASCII from none.
    let max_composed = if text.is_ascii() { 1 } else { 3 };
    let mut letters = text.chars().filter(|c| c.is_alphanumeric());
    letters.nth(max * max_composed).is_some()
}

/// The effect of a message on consent, and the confirmation for its author. Webhooks, `reconcile` and the examples of a
/// rules file share these rules.
pub(crate) struct ConsentRules {
    keywords: Keywords,
    replies: ConsentReplies,
}

/// Keyword that a user cannot answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKeyword {
    /// A keyword that Twilio handles itself.
    Twilios(&'static str),
    /// One of the keywords of this server.
    Own,
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

    /// Returns the keywords.
    pub(crate) fn keywords(&self) -> &Keywords {
        &self.keywords
    }

    /// Returns the keyword that a text is, or a shorter one that is taken for it, so that a user cannot answer with it.
    pub(crate) fn answer_keyword(&self, sender: &Address, text: &str) -> Option<AnswerKeyword> {
        if self.keywords.are_twilios(sender.channel()) {
            return title_keyword(text).map(AnswerKeyword::Twilios);
        }
        let mut answers = answer_texts(text).into_iter();
        let is_own = answers.any(|text| self.keywords.meaning(sender, &text).is_some());
        is_own.then_some(AnswerKeyword::Own)
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
        let (sender, text) = (&message.to, &message.body);
        // A tap on a choice is an answer, whatever its title, unless Twilio handles keywords: then it was a keyword.
        if message.is_tap_on_choice() && !self.keywords.are_twilios(sender.channel()) {
            return None;
        }
        let how = ConsentSource::Keyword;
        let word = self.keywords.meaning(sender, text)?;
        let answer = |reply: &Document| {
            // Twilio confirms the keyword itself, and after a STOP it would block ours (error 21610).
            if self.keywords.is_confirmed_by_twilio(sender, text, word) {
                return String::new();
            }
            reply.to_stored().unwrap_or_default()
        };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHATSAPP: &str = "whatsapp:+15550002222";
    const SMS: &str = "+15550002222";
    const RCS: &str = "rcs:agent";
    const TOLL_FREE: &str = "+18885550100";

    fn words() -> Keywords {
        Keywords::new(
            &["STOP", "STOPALL", "opt  out", "dar de baja", "🛑"],
            &["START", "UNSTOP"],
        )
    }

    fn meaning(keywords: &Keywords, sender: &str, text: &str) -> Option<Keyword> {
        keywords.meaning(&Address::parse(sender), text)
    }

    #[cfg(feature = "rules")]
    #[test]
    fn default_consent_keywords_match_default_toml() {
        let settings = include_str!("config/default.toml");
        let usual = Keywords::usual();
        let upper = |phrases: &[String]| {
            let upper = phrases.iter().map(|phrase| phrase.to_uppercase());
            upper.collect::<Vec<_>>()
        };
        for (key, words) in [
            ("stop_words", &usual.others.stop),
            ("start_words", &usual.others.start),
            ("sms_stop_words", &usual.sms.stop),
            ("sms_start_words", &usual.sms.start),
        ] {
            let line = format!("\n{key} = {:?}", upper(words));
            assert!(settings.contains(&line), "{line}");
        }
    }

    // Case, accents, width, punctuation, formatting marks and invisible characters do not matter.
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
            "stop..",
            "stop!",
            "*STOP*",
            "¡Stop!",
            "S\u{200b}T\u{200d}OP",
            "Opt out.",
            "OPT\nOUT",
            "opt-out",
            "Dar de baja, ",
            "🛑!",
        ] {
            assert_eq!(
                meaning(&words(), WHATSAPP, text),
                Some(Keyword::Stop),
                "{text:?}"
            );
        }
        for text in [
            "",
            ".",
            "!!!",
            "please stop",
            "stop it",
            "stopp",
            "s t o p",
            "optout",
            "don't stop",
            "dar de baja mañana",
            "🛑🛑",
            "STOP START",
        ] {
            assert_eq!(meaning(&words(), WHATSAPP, text), None, "{text:?}");
        }
    }

    proptest! {
        // Decorations of any length never change the meaning, also that of an ordinary text.
        #[test]
        fn decorations_never_change_the_meaning(
            text in prop_oneof![
                Just("STOP"), Just("start"), Just("opt out"), Just("dar de baja"), Just("hello"), Just("stop it"),
            ],
            before in "[ *_~!¡.\u{200b}\u{feff}\u{200e}]{0,90}",
            after in "[ *_~!?.…\u{200b}\u{200d}\u{fe0f}\u{ad}]{0,90}",
            inside in "[\u{200b}\u{200c}\u{200d}\u{2060}\u{ad}]{0,3}",
        ) {
            let (first, rest) = text.split_at(1);
            let decorated = format!("{before}{first}{inside}{rest}{after}");
            for sender in [WHATSAPP, SMS, RCS, TOLL_FREE] {
                let plain = meaning(&words(), sender, text);
                prop_assert_eq!(meaning(&words(), sender, &decorated), plain, "{:?}", decorated);
            }
        }

        #[test]
        fn longer_texts_are_not_keywords(text in "[a-zA-Zäß가-힣 ]{0,40}") {
            let phrase = fold_phrase(&text);
            let expected = words().others.meaning(&phrase);
            prop_assert_eq!(meaning(&words(), WHATSAPP, &text), expected);
        }
    }

    #[test]
    fn consent_keywords_are_twilios_on_sms_and_rcs() {
        for sender in [SMS, RCS] {
            for text in sms_keywords::STOP {
                assert_eq!(meaning(&words(), sender, text), Some(Keyword::Stop));
            }
            assert_eq!(meaning(&words(), sender, "yes"), Some(Keyword::Start));
            assert_eq!(meaning(&words(), sender, "dar de baja"), None);
        }
        for text in ["CANCEL", "END", "QUIT", "YES"] {
            assert_eq!(meaning(&words(), WHATSAPP, text), None, "{text}");
        }
        let own = Keywords::new(&["basta"], &["avanti"]);
        assert_eq!(meaning(&own, WHATSAPP, "Basta."), Some(Keyword::Stop));
        assert_eq!(meaning(&own, SMS, "basta"), None);
    }

    #[test]
    fn own_sms_keywords_replace_twilios() {
        let own = words().with_own_sms(&["STOP", "arrêt"], &["DÉBUT"]);
        for sender in [SMS, RCS] {
            assert_eq!(meaning(&own, sender, "ARRET!"), Some(Keyword::Stop));
            assert_eq!(meaning(&own, sender, "debut"), Some(Keyword::Start));
            assert_eq!(meaning(&own, sender, "CANCEL"), None);
            let address = Address::parse(sender);
            assert!(!own.is_confirmed_by_twilio(&address, "STOP", Keyword::Stop));
        }
        assert_eq!(meaning(&own, WHATSAPP, "arret"), None);
    }

    #[test]
    fn twilio_confirms_only_its_undecorated_keywords() {
        let is_confirmed = |sender: &str, text: &str| {
            let sender = Address::parse(sender);
            let keyword = words().meaning(&sender, text).expect("a keyword");
            words().is_confirmed_by_twilio(&sender, text, keyword)
        };
        for (sender, text, expected) in [
            (SMS, "STOP", true),
            (SMS, " cancel\n", true),
            (RCS, "yes", true),
            (SMS, "stop!", false),
            (SMS, "ＳＴＯＰ", false),
            (WHATSAPP, "STOP", false),
            (TOLL_FREE, "stop", true),
            (TOLL_FREE, "CANCEL", false),
            (TOLL_FREE, "unstop", true),
        ] {
            assert_eq!(is_confirmed(sender, text), expected, "{sender} {text:?}");
        }
        // A carrier would continue to block the user.
        assert_eq!(meaning(&words(), TOLL_FREE, "YES"), None);
        assert_eq!(meaning(&words(), SMS, "YES"), Some(Keyword::Start));
    }
}
