//! What a route can look for.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::filter::{Filter, Kind, Near, Sought};
use super::hours::{Hours, HoursError};
use crate::address::Channel;
use crate::handler::folding::{fold, spaced_words};
use crate::message::InboundMessage;

/// What a pattern may take, compiled: more is a pattern that repeats repetitions.
pub(crate) const PATTERN_BYTES: usize = 3 * 1024 * 1024;

/// One text or several of which any will do: `"hi"`, `["hi", "hello"]`, a `Vec`.
pub trait Texts {
    /// The texts.
    fn texts(self) -> Vec<String>;
}

impl Texts for &str {
    fn texts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Texts for String {
    fn texts(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const N: usize> Texts for [T; N] {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> Texts for Vec<T> {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

fn sought(texts: impl Texts, compared: impl Fn(&str) -> String) -> Vec<Sought> {
    let texts = texts.texts().into_iter();
    texts
        .map(|written| Sought {
            compared: compared(&written),
            written,
        })
        .collect()
}

/// Every message.
pub fn anything() -> Filter {
    Filter(Kind::Anything)
}

/// A whole text. Case, accents, width and space around and between do not matter.
pub fn text(texts: impl Texts) -> Filter {
    Filter(Kind::Text(sought(texts, fold)))
}

/// A word, or words in a row, anywhere in the text. Case, accents and what stands between words do not matter; a part of a word
/// is none, and where there is no letter and no digit, there is no word.
pub fn words(words: impl Texts) -> Filter {
    let words = words.texts().into_iter().filter(|words| has_word(words));
    let words: Vec<_> = words.collect();
    Filter(Kind::Words(sought(words, |word| spaced_words(&fold(word)))))
}

/// Whether [`words`] would look for anything.
pub(crate) fn has_word(text: &str) -> bool {
    !spaced_words(&fold(text)).trim().is_empty()
}

/// `/order 42`: the command's name, without the slash. Case and accents do not matter. [`Captures`](super::Captures) has what
/// stands behind it.
pub fn command(name: impl Into<String>) -> Filter {
    Filter(Kind::Command(fold(name.into().trim_start_matches('/'))))
}

/// A regular expression, anywhere in the text unless `^` and `$` say otherwise: without case (`(?-i)` turns that off), on the
/// text after NFKC and without space around it. Accents do matter here. [`Captures`](super::Captures) has its groups.
///
/// # Panics
/// Where the pattern is none, or takes over 3 MiB: this happens when the bot is put together. [`try_regex`] says so.
#[track_caller]
pub fn regex(pattern: &str) -> Filter {
    try_regex(pattern).unwrap_or_else(|error| panic!("{error}"))
}

/// The same for a pattern that is not known before.
///
/// # Errors
/// [`regex::Error`]: the pattern is none, or too large.
pub fn try_regex(pattern: &str) -> Result<Filter, regex::Error> {
    compiled_within(pattern, PATTERN_BYTES).map(of_pattern)
}

/// A pattern that was compiled.
pub(crate) fn of_pattern(pattern: Regex) -> Filter {
    Filter(Kind::Regex(pattern))
}

/// A pattern as routes have it: without case, and of no more than so many bytes.
pub(crate) fn compiled_within(pattern: &str, bytes: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .case_insensitive(true)
        .size_limit(bytes)
        .build()
}

/// Any file.
pub fn any_media() -> Filter {
    Filter(Kind::Media(None))
}

/// A file of a type such as `image`, `application/pdf`, or `document`: what is none of image, audio, video and contact.
pub fn media(kind: impl Into<String>) -> Filter {
    let kind = kind.into().to_ascii_lowercase();
    Filter(Kind::Media(Some(kind.trim_end_matches("/*").to_owned())))
}

/// A picture.
pub fn image() -> Filter {
    media("image")
}

/// A voice note, or another recording.
pub fn audio() -> Filter {
    media("audio")
}

/// A film.
pub fn video() -> Filter {
    media("video")
}

/// A file that is none of picture, recording, film and contact.
pub fn document() -> Filter {
    media("document")
}

/// Any location.
pub fn location() -> Filter {
    Filter(Kind::Location(None))
}

/// A location within so many kilometres of a place, as the crow flies.
pub fn near(latitude: f64, longitude: f64, km: f64) -> Filter {
    Filter(Kind::Location(Some(Near {
        latitude,
        longitude,
        km,
    })))
}

/// Any pressed button.
pub fn any_button() -> Filter {
    Filter(Kind::Button(None))
}

/// A pressed button: its payload as it is, or, where it has none, its text, as [`text()`] compares.
pub fn button(payloads: impl Texts) -> Filter {
    Filter(Kind::Button(Some(sought(payloads, fold))))
}

/// Any choice from a list.
pub fn any_list_item() -> Filter {
    Filter(Kind::List(None))
}

/// A choice from a list: its id as it is, or, where it has none, its title, as [`text()`] compares.
pub fn list_item(ids: impl Texts) -> Filter {
    Filter(Kind::List(Some(sought(ids, fold))))
}

/// What a WhatsApp Flow gave.
pub fn flow_answer() -> Filter {
    Filter(Kind::Flow)
}

/// The first message of its author to this sender of yours, as far as the journal knows.
pub fn first_contact() -> Filter {
    Filter(Kind::FirstContact)
}

/// A forwarded message.
pub fn forwarded() -> Filter {
    Filter(Kind::Forwarded)
}

/// A message that quotes one of yours.
pub fn reply_to_us() -> Filter {
    Filter(Kind::ReplyToUs)
}

/// A channel.
pub fn channel(channel: Channel) -> Filter {
    Filter(Kind::Channel(channel))
}

/// Authors of a country, as in `DE`: as Twilio says (SMS), by a business-scoped id, or by the calling code and, for +1, the
/// area code.
pub fn country(countries: impl Texts) -> Filter {
    let countries = countries.texts().into_iter();
    Filter(Kind::Country(
        countries
            .map(|country| country.to_ascii_uppercase())
            .collect(),
    ))
}

/// Messages that come in these [`Hours`].
pub fn during(hours: Hours) -> Filter {
    Filter(Kind::During(hours))
}

/// Messages that come in hours such as `mon-fri 09:00-17:30` of a time zone such as `Europe/Berlin`.
///
/// # Panics
/// Where there are no such hours: this happens when the bot is put together. [`Hours::parse`] says so.
#[track_caller]
pub fn hours(times: &str, zone: &str) -> Filter {
    let hours: Result<Hours, HoursError> = Hours::parse(times, zone);
    during(hours.unwrap_or_else(|error| panic!("{error}")))
}

/// Whatever your function says yes to; the name is for the table of routes.
pub fn when(
    name: &'static str,
    predicate: impl Fn(&InboundMessage) -> bool + Send + Sync + 'static,
) -> Filter {
    Filter(Kind::Predicate(name, Arc::new(predicate)))
}

/// All of these, as `&` makes it of two; without any, every message.
pub fn all(filters: Vec<Filter>) -> Filter {
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(Kind::All(filters)),
    }
}

/// One of these at least, as `|` makes it of two; without any, no message.
pub fn one_of(filters: Vec<Filter>) -> Filter {
    match <[Filter; 1]>::try_from(filters) {
        Ok([filter]) => filter,
        Err(filters) => Filter(Kind::OneOf(filters)),
    }
}
