//! Other readings of a body and a query: what was there before something on the way changed it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::explain::{BodyChange, QueryChange};
use crate::form::Form;

/// Parameters that an SMS carries empty, and that intermediaries like to drop.
const OFTEN_EMPTY: [&str; 9] = [
    "Body",
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "ToCity",
    "ToCountry",
    "ToState",
    "ToZip",
];

/// What a posted form may have been, by what would have happened to it.
pub(super) fn bodies<'a>(
    form: &'a Form,
    body: &[u8],
) -> impl Iterator<Item = (BodyChange, Form)> + 'a {
    let reparsed = |body: &[u8]| Form::parse(body, form.len() + 64).unwrap_or_default();
    let base64 = STANDARD.decode(body.trim_ascii()).unwrap_or_default();
    let mapped = |change: fn(&str) -> String| -> Form {
        form.iter()
            .map(|(name, value)| (name.to_owned(), change(value)))
            .collect()
    };
    let filled = form.iter().filter(|(_, value)| !value.is_empty()).collect();
    let readings = [
        (BodyChange::Padded, reparsed(body.trim_ascii_end())),
        (BodyChange::EncodedTwice, mapped(decoded_again)),
        (
            BodyChange::PlusLost,
            mapped(|value| value.replace(' ', "+")),
        ),
        (BodyChange::PlusLost, mapped(plus_before_digits)),
        (
            BodyChange::LineEnds,
            mapped(|value| value.replace('\n', "\r\n")),
        ),
        (
            BodyChange::LineEnds,
            mapped(|value| value.replace("\r\n", "\n")),
        ),
        (BodyChange::BlanksNotSigned, filled),
        (BodyChange::Charset, mapped(latin1_as_utf8)),
        (BodyChange::Base64, reparsed(&base64)),
        (BodyChange::RepeatsNotSigned, without_repeats(form, false)),
        (BodyChange::RepeatsNotSigned, without_repeats(form, true)),
    ];
    let changed = readings
        .into_iter()
        .filter(move |(_, reading)| reading != form);
    changed.chain(with_blanks(form).map(|reading| (BodyChange::BlanksDropped, reading)))
}

/// What a query may have been, by what would have happened to it.
pub(super) fn queries(query: &str) -> Vec<(QueryChange, String)> {
    let pairs = Form::parse(query.as_bytes(), 64).unwrap_or_default();
    let decoded = |space: &str| -> String {
        let pairs = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}").replace(' ', space));
        pairs.collect::<Vec<_>>().join("&")
    };
    let encoded = pairs.encode();
    let mut sorted: Vec<&str> = query.split('&').collect();
    sorted.sort_unstable();
    let reencoded = [
        encoded.replace('+', "%20"),
        encoded.replace("%7E", "~"),
        encoded.replace('+', "%20").replace("%7E", "~"),
        with_escapes(query, |digit| digit.to_ascii_lowercase()),
        with_escapes(query, |digit| digit.to_ascii_uppercase()),
        query.replace("%20", "+"),
        query.replace('+', "%20"),
        query.replace('+', "%2B"),
        query.replace("%2B", "+"),
        decoded(" "),
        decoded("%20"),
        decoded("+"),
        encoded,
    ];
    let mut readings = vec![
        (QueryChange::Added, String::new()),
        (QueryChange::Reordered, sorted.join("&")),
    ];
    readings.extend(
        orders(query)
            .into_iter()
            .map(|query| (QueryChange::Reordered, query)),
    );
    readings.extend(
        reencoded
            .into_iter()
            .map(|query| (QueryChange::Reencoded, query)),
    );
    readings
}

fn decoded_again(value: &str) -> String {
    let escaped = value.replace('&', "%26").replace('=', "%3D");
    let decoded = Form::parse(escaped.as_bytes(), 1).unwrap_or_default();
    decoded
        .iter()
        .next()
        .map_or_else(String::new, |(name, _)| name.to_owned())
}

/// The usual loss: a number whose + was taken for a space.
fn plus_before_digits(value: &str) -> String {
    let mut chars = value.chars().peekable();
    let mut out = String::with_capacity(value.len());
    while let Some(c) = chars.next() {
        let lost = c == ' ' && chars.peek().is_some_and(char::is_ascii_digit);
        out.push(if lost { '+' } else { c });
    }
    out
}

/// Text whose UTF-8 was read as Latin-1, read again as what it was.
fn latin1_as_utf8(text: &str) -> String {
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// Of each repeated name one value.
fn without_repeats(form: &Form, last: bool) -> Form {
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for (name, value) in form.iter() {
        match kept.iter_mut().find(|(known, _)| *known == name) {
            Some(pair) if last => pair.1 = value,
            Some(_) => {}
            None => kept.push((name, value)),
        }
    }
    kept.into_iter().collect()
}

/// The form with each choice of the blanks that may have been dropped, all of them first.
fn with_blanks(form: &Form) -> impl Iterator<Item = Form> + '_ {
    let absent: Vec<&str> = OFTEN_EMPTY
        .into_iter()
        .filter(|name| form.get(name).is_none())
        .collect();
    (1..1_usize << absent.len()).rev().map(move |chosen| {
        let chosen = absent
            .iter()
            .enumerate()
            .filter(move |(at, _)| chosen >> at & 1 == 1);
        form.iter()
            .chain(chosen.map(|(_, name)| (*name, "")))
            .collect()
    })
}

/// Every order of two to four pairs.
fn orders(query: &str) -> Vec<String> {
    let pairs: Vec<&str> = query.split('&').collect();
    if !(2..=4).contains(&pairs.len()) {
        return Vec::new();
    }
    let count: usize = (1..=pairs.len()).product();
    (0..count).map(|index| order(&pairs, index)).collect()
}

/// The order of a number in the factorial system.
fn order(pairs: &[&str], mut index: usize) -> String {
    let mut left = pairs.to_vec();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let next = index % left.len();
        index /= left.len();
        ordered.push(left.remove(next));
    }
    ordered.join("&")
}

/// The query with the two digits after each `%` changed.
fn with_escapes(query: &str, change: fn(char) -> char) -> String {
    let mut digits = 0;
    let change = |c: char| match (c, digits) {
        ('%', _) => {
            digits = 2;
            c
        }
        (_, 0) => c,
        _ => {
            digits -= 1;
            change(c)
        }
    };
    query.chars().map(change).collect()
}
