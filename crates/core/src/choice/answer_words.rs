//! The words of a title or of a typed answer, as they are compared.

use unicode_normalization::char::is_combining_mark;

use crate::folding::fold;

/// Polite words around an answer, which do not change it.
const POLITE: [&str; 22] = [
    "please",
    "pls",
    "plz",
    "thanks",
    "thank you",
    "thx",
    "por favor",
    "porfa",
    "porfavor",
    "gracias",
    "bitte",
    "danke",
    "s il vous plait",
    "s il te plait",
    "svp",
    "stp",
    "merci",
    "obrigado",
    "obrigada",
    "per favore",
    "grazie",
    "пожалуйста",
];

/// Returns the words of a text in the form in which they are compared.
///
/// Punctuation, emoji and white space separate words. So does the place between a digit and a letter, as in `9am`.
/// Signs between digits, as in `1.5` or `10:30`, belong to the word.
pub(super) fn words(text: &str) -> Vec<String> {
    // Arabic vowel signs and the stroke that lengthens a word are optional.
    let is_optional = |c: &char| matches!(c, '\u{640}' | '\u{64b}'..='\u{652}');
    let chars = fold(text)
        .chars()
        .filter(|c| !is_optional(c))
        .map(ascii_digit)
        .collect::<Vec<_>>();
    let mut words = Vec::new();
    let mut word = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let after = chars.get(at + 1).copied();
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let part = match c {
            // "a.m." is a word, and so is "1.5".
            '.' if is_digit(before) && is_digit(after) => Some('.'),
            '.' => continue,
            ',' | ':' | '/' if is_digit(before) && is_digit(after) => Some(c),
            // "-2" is not the second choice, unlike "- 2".
            '-' | '–' | '—'
                if is_digit(after) && before.is_none_or(|c| c == ' ' || c.is_ascii_digit()) =>
            {
                Some('-')
            }
            c if belongs_to_word(c) => Some(c),
            _ => None,
        };
        // The last character of the word and not `before`: the full stop of "Nr.1" is left out.
        let is_boundary = word.chars().next_back().is_some_and(|last| {
            (last.is_ascii_digit() && c.is_alphabetic())
                || (last.is_alphabetic() && c.is_ascii_digit())
        });
        if (part.is_none() || is_boundary) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.extend(part);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Returns whether a character is part of a word. Signs that change its meaning are, as in `C#`, `+1` and `50%`.
fn belongs_to_word(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c) || "+#%&@$€£¥=<^|°".contains(c)
}

/// Returns the words without polite ones at either end; all of them if none would remain.
pub(super) fn without_polite_words(words: &[String]) -> &[String] {
    let mut rest = words;
    loop {
        let shorter = POLITE.iter().find_map(|polite| {
            let polite: Vec<&str> = polite.split(' ').collect();
            let (start, end) = (
                rest.get(..polite.len()),
                rest.len().checked_sub(polite.len()),
            );
            if start.is_some_and(|start| start == polite) {
                return rest.get(polite.len()..);
            }
            let end = end?;
            (rest.get(end..)? == polite).then(|| &rest[..end])
        });
        match shorter {
            Some([]) => return words,
            Some(shorter) => rest = shorter,
            None => return rest,
        }
    }
}

/// Returns the words of a title before its first parenthesis, as in "Small (30 cm)".
pub(super) fn words_before_parenthesis(title: &str) -> Option<Vec<String>> {
    let (before, _) = title.split_once(['(', '（'])?;
    Some(words(before)).filter(|words| !words.is_empty())
}

/// Returns the emoji and other pictures of a text.
pub(super) fn pictures(text: &str) -> String {
    let is_picture = |c: &char| *c >= '\u{2190}' && !c.is_alphanumeric() && !is_cjk_punctuation(*c);
    // A skin tone does not make another picture.
    let is_tone = |c: &char| matches!(c, '\u{1f3fb}'..='\u{1f3ff}');
    let chars = text
        .chars()
        .filter(|c| !is_combining_mark(*c) && !c.is_whitespace() && !is_tone(c));
    chars.filter(is_picture).collect()
}

fn is_cjk_punctuation(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{303f}' | '\u{fe00}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}')
}

/// Returns the ASCII form of a decimal digit of another script.
pub(super) fn ascii_digit(c: char) -> char {
    // The zeros of scripts in use today. Full-width and circled digits are ASCII already, by NFKD.
    const ZEROS: [char; 15] = [
        '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}',
        '\u{be6}', '\u{c66}', '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{17e0}',
    ];
    let digit = ZEROS.iter().find_map(|zero| {
        let value = u32::from(c).checked_sub(u32::from(*zero))?;
        (value < 10).then(|| char::from_digit(value, 10))?
    });
    digit.unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_ignore_case_punctuation_and_scripts_of_digits() {
        for (text, expected) in [
            ("Another-day!", "another day"),
            ("9 a.m.", "9 am"),
            ("9am", "9 am"),
            ("Nr.1", "nr 1"),
            ("1.5", "1.5"),
            ("10:30", "10:30"),
            ("1–2", "1-2"),
            ("- 2", "2"),
            ("-2", "-2"),
            ("C#, C++", "c# c++"),
            ("٢.", "2"),
            ("「はい」。", "はい"),
            ("🍕", ""),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn polite_words_are_dropped_at_both_ends() {
        for (text, expected) in [
            ("please, today, thank you", "today"),
            ("Oui s'il vous plaît", "oui"),
            ("thank you", "thank you"),
            ("no please no", "no please no"),
        ] {
            assert_eq!(without_polite_words(&words(text)).join(" "), expected);
        }
    }
}
