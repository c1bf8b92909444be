//! Texts that PostgreSQL would refuse.
//!
//! Its texts hold every character but NUL. So NUL is written as U+0001 and `0`, and U+0001 as U+0001 and `1`: equal stays
//! equal, different stays different, and every text that anybody writes stays as it is.

use std::borrow::Cow;

const ESCAPE: char = '\u{1}';

/// A text as it is stored.
pub(super) fn pack(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
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

/// Texts as they are stored, for an array.
pub(super) fn packed<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    texts
        .into_iter()
        .map(|text| pack(text).into_owned())
        .collect()
}

/// The text that [`pack`] was given.
pub(super) fn unpack(packed: String) -> String {
    if !packed.contains(ESCAPE) {
        return packed;
    }
    let mut text = String::with_capacity(packed.len());
    let mut chars = packed.chars();
    while let Some(c) = chars.next() {
        match c {
            ESCAPE if chars.next() == Some('0') => text.push('\0'),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_as_it_was_and_two_stay_two() {
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
