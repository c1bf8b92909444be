//! Candidates for the original body, query, path or host, before a proxy or gateway changed it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::explain::{BodyChange, QueryChange};
use crate::form::FormParams;

/// Parameters that are often empty in an SMS, and that intermediaries then drop.
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

/// Paths at which other programs often receive Twilio's webhooks, for a proxy that maps one of them to ours.
pub(super) const COMMON_PATHS: [&str; 43] = [
    "",
    // Our defaults, for a server that has others.
    "/webhook",
    "/webhook/fallback",
    "/webhook/status",
    "/sms",
    "/message",
    "/messages",
    "/incoming",
    "/inbound",
    "/receive",
    "/reply",
    "/bot",
    "/chat",
    "/twilio",
    "/whatsapp",
    "/hook",
    "/callback",
    "/webhooks",
    "/status",
    "/fallback",
    "/sms/incoming",
    "/sms/inbound",
    "/sms/receive",
    "/sms/reply",
    "/sms/webhook",
    "/sms/status",
    "/sms/fallback",
    "/twilio/sms",
    "/twilio/whatsapp",
    "/twilio/webhook",
    "/twilio/incoming",
    "/twilio/inbound",
    "/twilio/status",
    "/twilio/fallback",
    "/whatsapp/webhook",
    "/webhook/sms",
    "/webhook/twilio",
    "/webhook/whatsapp",
    "/webhooks/sms",
    "/webhooks/twilio",
    "/webhooks/whatsapp",
    "/api/sms",
    "/api/twilio",
];

/// Returns forms that may have been posted originally, each with the change that leads to the received one.
pub(super) fn body_candidates<'a>(
    form: &'a FormParams,
    body: &[u8],
) -> impl Iterator<Item = (BodyChange, FormParams)> + 'a {
    // A change can split or join pairs, hence the margin. What cannot be parsed becomes an empty form, which cannot
    // match: the caller has tried it before.
    let reparsed = |body: &[u8]| FormParams::parse(body, form.len() + 64).unwrap_or_default();
    let base64 = STANDARD.decode(body.trim_ascii()).unwrap_or_default();
    let mapped = |change: fn(&str) -> String| -> FormParams {
        form.iter()
            .map(|(name, value)| (name.to_owned(), change(value)))
            .collect()
    };
    let nonempty = form.iter().filter(|(_, value)| !value.is_empty()).collect();
    // Computed eagerly, since each is a copy of the form; only the many combinations of `with_blanks` are lazy.
    let candidates = [
        (BodyChange::Padded, reparsed(body.trim_ascii_end())),
        (BodyChange::EncodedTwice, mapped(decode_again)),
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
        (BodyChange::BlanksNotSigned, nonempty),
        (BodyChange::Charset, mapped(latin1_as_utf8)),
        (BodyChange::Base64, reparsed(&base64)),
        (BodyChange::RepeatsNotSigned, without_repeats(form, false)),
        (BodyChange::RepeatsNotSigned, without_repeats(form, true)),
    ];
    // A change that does nothing here would repeat an attempt that has failed already.
    let changed = candidates
        .into_iter()
        .filter(move |(_, candidate)| candidate != form);
    changed.chain(with_blanks(form).map(|candidate| (BodyChange::BlanksDropped, candidate)))
}

/// Returns queries that may have been signed originally, each with the change that leads to the received one.
pub(super) fn query_candidates(query: &str) -> Vec<(QueryChange, String)> {
    let pairs = FormParams::parse(query.as_bytes(), 64).unwrap_or_default();
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
        map_escapes(query, |digit| digit.to_ascii_lowercase()),
        map_escapes(query, |digit| digit.to_ascii_uppercase()),
        query.replace("%20", "+"),
        query.replace('+', "%20"),
        query.replace('+', "%2B"),
        query.replace("%2B", "+"),
        decoded(" "),
        decoded("%20"),
        decoded("+"),
        encoded,
    ];
    let mut candidates = vec![
        (QueryChange::Added, String::new()),
        (QueryChange::Reordered, sorted.join("&")),
    ];
    candidates.extend(
        permutations(query)
            .into_iter()
            .map(|query| (QueryChange::Reordered, query)),
    );
    candidates.extend(
        reencoded
            .into_iter()
            .map(|query| (QueryChange::Reencoded, query)),
    );
    candidates
}

/// Returns an authority with its host in capitals, with its first label in capitals, with a capital first letter, and
/// with one in each of its labels.
pub(super) fn capitalized(authority: &str) -> [String; 4] {
    let lower = authority.to_ascii_lowercase();
    let capitals = |is_first: &dyn Fn(Option<char>) -> bool| {
        let mut before = None;
        lower
            .chars()
            .map(|c| {
                if is_first(before.replace(c)) {
                    c.to_ascii_uppercase()
                } else {
                    c
                }
            })
            .collect()
    };
    let (first, rest) = lower.split_at(lower.find('.').unwrap_or(lower.len()));
    [
        lower.to_ascii_uppercase(),
        first.to_ascii_uppercase() + rest,
        capitals(&|before| before.is_none()),
        capitals(&|before| before.is_none_or(|c| matches!(c, '.' | '-'))),
    ]
}

fn decode_again(value: &str) -> String {
    // Escape the separators, so that the value is parsed as one name.
    let escaped = value.replace('&', "%26").replace('=', "%3D");
    let decoded = FormParams::parse(escaped.as_bytes(), 1).unwrap_or_default();
    decoded
        .iter()
        .next()
        .map_or_else(String::new, |(name, _)| name.to_owned())
}

/// Restores the `+` of phone numbers that was decoded as a space, which is the most common loss.
fn plus_before_digits(value: &str) -> String {
    let mut chars = value.chars().peekable();
    let mut out = String::with_capacity(value.len());
    while let Some(c) = chars.next() {
        let is_lost = c == ' ' && chars.peek().is_some_and(char::is_ascii_digit);
        out.push(if is_lost { '+' } else { c });
    }
    out
}

/// Reverses the decoding of UTF-8 as Latin-1. Returns a text unchanged if it cannot be the result of that.
fn latin1_as_utf8(text: &str) -> String {
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// Keeps one value of each repeated name: the last one if `keep_last` is true, otherwise the first.
fn without_repeats(form: &FormParams, keep_last: bool) -> FormParams {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (name, value) in form.iter() {
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some(pair) if keep_last => pair.1 = value,
            Some(_) => {}
            None => pairs.push((name, value)),
        }
    }
    pairs.into_iter().collect()
}

/// Returns the form with each combination of the empty parameters that may have been dropped, beginning with all of
/// them.
fn with_blanks(form: &FormParams) -> impl Iterator<Item = FormParams> + '_ {
    let absent: Vec<&str> = OFTEN_EMPTY
        .into_iter()
        .filter(|name| form.get(name).is_none())
        .collect();
    // Each bit of the number selects one absent parameter: at most 2^9 combinations. The caller stops when its budget
    // is used up.
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

/// Returns the query with its pairs in every order, for two to four pairs.
fn permutations(query: &str) -> Vec<String> {
    // The number of orders is a factorial: 24 for four pairs, 120 for five.
    let pairs: Vec<&str> = query.split('&').collect();
    if !(2..=4).contains(&pairs.len()) {
        return Vec::new();
    }
    let count: usize = (1..=pairs.len()).product();
    (0..count).map(|index| permutation(&pairs, index)).collect()
}

/// Returns the permutation with a number, read in the factorial number system.
fn permutation(pairs: &[&str], mut index: usize) -> String {
    let mut remaining = pairs.to_vec();
    let mut ordered = Vec::with_capacity(remaining.len());
    while !remaining.is_empty() {
        let next = index % remaining.len();
        index /= remaining.len();
        ordered.push(remaining.remove(next));
    }
    ordered.join("&")
}

/// Applies a change to the two characters after each `%` of a query.
fn map_escapes(query: &str, change: fn(char) -> char) -> String {
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
