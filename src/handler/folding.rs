//! What counts as the same text: people write without capitals, accents and care for spaces, and their phones bend quotes.
//!
//! Texts are compared after NFKC, without case, without the accents of Latin and Greek letters (and the dots of ё), with straight
//! quotes, without what cannot be seen, and with any white space as one space, none around. Marks that make another letter, as
//! in й or が, stay, and so does the joiner that makes one emoji of several.

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
            if !is_accent(base, c) && !is_variant(c) {
                push(c);
            }
            continue;
        }
        base = c;
        if is_unseen(c) || c == '\u{200c}' {
            continue;
        }
        let c = straight(c);
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

/// What tells how an emoji is drawn, and not which it is.
fn is_variant(mark: char) -> bool {
    matches!(mark, '\u{fe0e}' | '\u{fe0f}')
}

/// Marks without width: of direction, of where a line may break, and of a text's beginning.
pub(in crate::handler) fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// As it is typed where nothing bends it.
fn straight(c: char) -> char {
    match c {
        '‘' | '’' | '‛' | 'ʼ' => '\'',
        '“' | '”' | '„' | '‟' => '"',
        c => c,
    }
}

/// A folded text without the signs that people put around a short answer; of one that is nothing else, all of it.
pub(in crate::handler) fn bare(folded: &str) -> &str {
    const AROUND: [char; 14] = [
        '.', ',', ';', ':', '!', '?', '(', ')', '"', '\'', '*', '_', '~', ' ',
    ];
    let bare = folded.trim_matches(AROUND);
    if bare.is_empty() { folded } else { bare }
}

/// The words of a folded text, each with a space on either side. What marks a word on WhatsApp, as `_` does, is no part of it.
pub(in crate::handler) fn spaced_words(folded: &str) -> String {
    let mut words = String::with_capacity(folded.len() + 2);
    words.push(' ');
    for word in folded
        .split('_')
        .flat_map(UnicodeSegmentation::unicode_words)
    {
        words.push_str(word);
        words.push(' ');
    }
    words
}

/// A text as patterns are matched against it: NFKC, without marks that cannot be seen, and no white space around it.
pub(in crate::handler) fn normal(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_owned();
    }
    let text: String = text.nfkc().filter(|c| !is_unseen(*c)).collect();
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
            ("Don’t", "don't"),
            ("“Hi”", "\"hi\""),
            ("❤\u{fe0f}", "❤"),
            ("\u{200e} hi\u{200f}", "hi"),
            ("می\u{200c}خواهم", "میخواهم"),
        ] {
            assert_eq!(fold(one), fold(other), "{one:?} {other:?}");
        }
        for (one, other) in [
            ("мой", "мои"),
            ("が", "か"),
            ("ping", "pong"),
            ("ab", "a b"),
            ("👨\u{200d}👩", "👨👩"),
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
        assert_eq!(spaced_words(&fold("_a refund_")), " a refund ");
        assert_eq!(spaced_words(&fold("*~refund~*")), " refund ");
        assert_eq!(spaced_words(""), " ");
    }
}
