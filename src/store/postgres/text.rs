//! Escaping of NUL, which a text in PostgreSQL cannot contain.
//!
//! NUL is stored as U+0001 and `0`, and U+0001 as U+0001 and `1`. Equal texts stay equal and different ones different,
//! so SQL can compare stored texts. A text without these two characters is stored unchanged.

use std::borrow::Cow;

const ESCAPE: char = '\u{1}';

/// Escapes a text for storage.
pub(super) fn pack(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    // With room for a few escapes, each of which adds a byte.
    let mut packed = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => packed.extend([ESCAPE, '0']),
            ESCAPE => packed.extend([ESCAPE, '1']),
            c => packed.push(c),
        }
    }
    Cow::Owned(packed)
}

/// Escapes texts for an array parameter.
pub(super) fn packed<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    texts
        .into_iter()
        .map(|text| pack(text).into_owned())
        .collect()
}

/// Reverses [`pack`].
pub(super) fn unpack(packed: String) -> String {
    if !packed.contains(ESCAPE) {
        return packed;
    }
    let mut text = String::with_capacity(packed.len());
    let mut chars = packed.chars();
    while let Some(c) = chars.next() {
        match c {
            // The guard consumes the second character of the escape, whether or not it is `0`.
            ESCAPE if chars.next() == Some('0') => text.push('\0'),
            // Any other character, or ESCAPE itself, whose `1` the guard has consumed.
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // PostgreSQL cannot store NUL characters, so they are escaped.
    #[test]
    fn packed_text_round_trips_and_stays_distinct() {
        let texts = [
            "",
            "a",
            "\0",
            "\u{1}",
            "\u{1}0",
            "\u{1}1",
            "a\0\u{1}\u{1}b",
            "10",
            "🦀'\"\\",
        ];
        for text in texts {
            let stored = pack(text);
            assert!(!stored.contains('\0'));
            assert_eq!(unpack(stored.into_owned()), text);
        }
        let stored: std::collections::HashSet<_> = texts.map(|text| pack(text).into_owned()).into();
        assert_eq!(stored.len(), texts.len());
    }
}
