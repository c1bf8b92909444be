//! The section `[consent]`: opt-out and opt-in keywords, and their confirmations.

use super::layers::{Layers, quoted};
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sources::Sources;
use crate::consent::SmsKeywords;
use crate::folding::fold_phrase;

/// The settings of the `[consent]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentSettings {
    /// Requires a recorded opt-in for a WhatsApp template outside of the customer service window.
    pub required: bool,
    /// Opt-out keywords, for channels where Twilio has none of its own.
    pub stop_words: Vec<String>,
    /// Opt-in keywords.
    pub start_words: Vec<String>,
    /// The side that handles keywords on SMS, MMS and RCS.
    pub sms: SmsKeywords,
    /// Opt-out keywords on SMS, MMS and RCS, if this server handles them.
    pub sms_stop_words: Vec<String>,
    /// Opt-in keywords on these channels.
    pub sms_start_words: Vec<String>,
    /// Confirmation of an opt-out; empty for none.
    pub stop_reply: String,
    /// Confirmation of an opt-in; empty for none.
    pub start_reply: String,
}

impl ConsentSettings {
    /// Returns `consent.stop_words` and `consent.start_words`, although other settings may be missing or invalid.
    ///
    /// ```
    /// use replyhook::config::{ConsentSettings, Sources};
    ///
    /// let sources = Sources::default().with_env([("REPLYHOOK__CONSENT__STOP_WORDS", "STOP, basta")]);
    /// let (stop_words, start_words) = ConsentSettings::words(&sources);
    /// assert_eq!(stop_words, ["STOP", "basta"]);
    /// assert_eq!(start_words, ["START", "UNSTOP"]);
    /// ```
    pub fn words(sources: &Sources) -> (Vec<String>, Vec<String>) {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let reader = SettingsReader::new(&layers, problems);
        let items = |key| reader.items(key);
        (items("consent.stop_words"), items("consent.start_words"))
    }
}

pub(super) fn consent(reader: &mut SettingsReader<'_>) -> Option<ConsentSettings> {
    let text = |reader: &SettingsReader<'_>, key: &str| reader.text(key).to_owned();
    // Read everything before returning `None`, so that all problems are reported together.
    let sides = [("twilio", SmsKeywords::Twilio), ("own", SmsKeywords::Own)];
    let sms = reader.choice("consent.sms", &sides);
    let words = keywords(reader, "consent.stop_words", "consent.start_words");
    let sms_words = keywords(reader, "consent.sms_stop_words", "consent.sms_start_words");
    let (stop_words, start_words) = words?;
    let (sms_stop_words, sms_start_words) = sms_words?;
    match sms? {
        SmsKeywords::Twilio => warn_of_unused_lists(reader),
        SmsKeywords::Own => warn_of_missing_stop(reader, &sms_stop_words),
    }
    Some(ConsentSettings {
        required: reader.flag("consent.required")?,
        stop_words,
        start_words,
        sms: sms?,
        sms_stop_words,
        sms_start_words,
        stop_reply: text(reader, "consent.stop_reply"),
        start_reply: text(reader, "consent.start_reply"),
    })
}

/// Returns whether `consent.sms` is `own`, for an emulator that starts before all settings are read.
#[cfg(all(feature = "server", feature = "emulator"))]
pub(crate) fn has_own_sms_keywords(sources: &Sources) -> bool {
    // Problems are reported when all settings are read.
    let layers = Layers::read(sources, &mut Problems::default());
    let own = layers.get("consent.sms");
    own.and_then(|entry| entry.value.as_str()) == Some("own")
}

/// Reads a list of opt-out keywords and one of opt-in keywords.
fn keywords(
    reader: &mut SettingsReader<'_>,
    stop_key: &str,
    start_key: &str,
) -> Option<(Vec<String>, Vec<String>)> {
    let (stop, start) = (phrases(reader, stop_key), phrases(reader, start_key));
    let (stop, start) = (stop?, start?);
    let folded: Vec<_> = stop.iter().map(|phrase| fold_phrase(phrase)).collect();
    let both = start
        .iter()
        .find(|phrase| folded.contains(&fold_phrase(phrase)));
    if let Some(phrase) = both {
        reader.problem(
            start_key,
            format!(
                "has {}, which {stop_key} has too: a message can mean only one of both",
                quoted(phrase)
            ),
        );
        return None;
    }
    Some((stop, start))
}

/// Reads a list of phrases, each of which has at least one letter, digit or symbol.
fn phrases(reader: &mut SettingsReader<'_>, key: &str) -> Option<Vec<String>> {
    let phrases = reader.items(key);
    if let Some(empty) = phrases.iter().find(|phrase| fold_phrase(phrase).is_empty()) {
        let text = format!(
            "has {}, which is an empty phrase: punctuation is not compared",
            quoted(empty)
        );
        reader.problem(key, text);
        return None;
    }
    Some(phrases)
}

fn warn_of_unused_lists(reader: &mut SettingsReader<'_>) {
    for key in ["consent.sms_stop_words", "consent.sms_start_words"] {
        let entry = reader.layers.get(key);
        if entry.is_some_and(|entry| entry.origin != "default") {
            reader.warn(
                key,
                "has no effect: with consent.sms = \"twilio\", Twilio's own keywords count on SMS, MMS and RCS; set \
                 consent.sms = \"own\" if they are switched off or changed at Twilio",
            );
        }
    }
}

fn warn_of_missing_stop(reader: &mut SettingsReader<'_>, stop_words: &[String]) {
    if !stop_words
        .iter()
        .any(|phrase| fold_phrase(phrase) == "stop")
    {
        reader.warn(
            "consent.sms_stop_words",
            "lacks STOP, which carriers require every sender to obey",
        );
    }
}
