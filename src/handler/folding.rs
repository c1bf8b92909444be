//! What counts as the same text: people write without capitals, accents and care for spaces.
//!
//! Texts are compared after NFKC, without case, without the accents of Latin and Greek letters (and the dots of ё), and with any
//! white space as one space, none around. Marks that make another letter, as in й or が, stay.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// A text as it is compared.
pub(in crate::handler) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    let mut push = |c: char| {
        if c.is_whitespace() {
            space = true;
            return;
        }
        if space && !folded.is_empty() {
            folded.push(' ');
        }
        space = false;
        folded.push(c);
    };
    if text.is_ascii() {
        text.chars().for_each(|c| push(c.to_ascii_lowercase()));
        return folded;
    }
    let mut base = '\0';
    for c in text.nfkd() {
        if is_combining_mark(c) {
            if !is_accent(base, c) {
                push(c);
            }
            continue;
        }
        base = c;
        // Upwards first: ß is SS, and both sigmas are Σ.
        c.to_uppercase()
            .flat_map(char::to_lowercase)
            .for_each(&mut push);
    }
    folded.nfc().collect()
}

/// Whether a mark may be left out over this letter.
fn is_accent(base: char, mark: char) -> bool {
    const DIAERESIS: char = '\u{308}';
    let accents = ('\u{300}'..='\u{36f}').contains(&mark);
    match base {
        'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{3ff}' => accents,
        'е' | 'Е' => mark == DIAERESIS,
        _ => false,
    }
}

/// The words of a folded text, each with a space on either side.
pub(in crate::handler) fn spaced_words(folded: &str) -> String {
    let mut words = String::with_capacity(folded.len() + 2);
    words.push(' ');
    for word in folded.unicode_words() {
        words.push_str(word);
        words.push(' ');
    }
    words
}

/// A text as patterns are matched against it: NFKC, and no white space around it.
pub(in crate::handler) fn normal(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_owned();
    }
    let text: String = text.nfkc().collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_width_and_spaces_do_not_matter_and_letters_do() {
        for (one, other) in [
            (" Olá  Mundo\n", "ola mundo"),
            ("STRASSE", "straße"),
            ("ΚΑΛΗΜΈΡΑ", "καλημερα"),
            ("Ｐｉｎｇ", "ping"),
            ("Ещё", "еще"),
            ("é", "e\u{301}"),
            ("ﬁne", "FINE"),
            ("\u{a0}hi\u{3000}", "hi"),
        ] {
            assert_eq!(fold(one), fold(other), "{one:?} {other:?}");
        }
        for (one, other) in [
            ("мой", "мои"),
            ("が", "か"),
            ("ping", "pong"),
            ("ab", "a b"),
        ] {
            assert_ne!(fold(one), fold(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn words_have_a_space_on_either_side_whatever_stands_between_them() {
        assert_eq!(
            spaced_words(&fold("I want (a) refund!")),
            " i want a refund "
        );
        assert_eq!(spaced_words(&fold("don't")), " don't ");
        assert_eq!(spaced_words(""), " ");
    }
}
