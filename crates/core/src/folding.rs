//! Normalization of texts before they are compared: users omit capitals and accents, and phones insert curly quotes.
//!
//! Compared texts are in NFKC, without case, without accents of Latin and Greek letters (and the dots of ё), with
//! straight quotes, and without invisible characters. Runs of white space become one space, with none around the text.
//! Marks that make another letter, as in й or が, are kept, and so is the joiner that makes one emoji of several.
//! Folding a folded text changes nothing.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// One text or several alternatives: `"hi"`, `["hi", "hello"]` or a `Vec`.
///
/// ```
/// use replyhook::route::text;
///
/// assert_eq!(text("hi").to_string(), r#"text "hi""#);
/// assert_eq!(text(["hi", "hello"]).to_string(), r#"text "hi", "hello""#);
/// let configured: Vec<String> = "hi hello".split(' ').map(str::to_owned).collect();
/// assert_eq!(text(configured).to_string(), r#"text "hi", "hello""#);
/// ```
pub trait IntoTexts {
    /// Returns the texts.
    fn texts(self) -> Vec<String>;
}

impl IntoTexts for &str {
    fn texts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoTexts for String {
    fn texts(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const N: usize> IntoTexts for [T; N] {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> IntoTexts for Vec<T> {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

/// Returns a text in the form in which it is compared.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    let mut push = |c: char| {
        // Delay a space until the next visible character, so that none is written at either end.
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
    // Fast path: ASCII has no accents, curly quotes or invisible marks, and is its own normal form.
    if text.is_ascii() {
        text.chars().for_each(|c| push(c.to_ascii_lowercase()));
        return folded;
    }
    // Decompose, so that an accent is a character of its own that can be dropped, and remember the letter under it.
    let mut base = '\0';
    // The zero-width non-joiner (U+200C) is not in `is_invisible`: `normalize` keeps it for patterns. Here it is dropped,
    // because Persian words are written with and without it. Filter before the loop, so that a mark after an invisible
    // character still belongs to the letter before it.
    let is_dropped = |c: &char| is_invisible(*c) || *c == '\u{200c}' || is_variation_selector(*c);
    let visible = text.nfkd().filter(|c| !is_dropped(c));
    let mut visible = visible.map(straighten_quote).peekable();
    while let Some(c) = visible.next() {
        if c == JOINER {
            let joins = is_joinable(base) && visible.peek().is_some_and(|c| is_joinable(*c));
            if joins {
                push(c);
            }
            continue;
        }
        if is_combining_mark(c) {
            if !is_accent(base, c) {
                push(c);
            }
            continue;
        }
        // To upper case between lower cases, since lower case alone keeps letters apart: ß becomes SS, and both σ and ς
        // Σ. The first lower case is for ẞ, whose upper case is itself.
        let lower = c.to_lowercase().flat_map(char::to_uppercase);
        for c in lower.flat_map(char::to_lowercase) {
            base = c;
            push(c);
        }
    }
    // Compose again the marks that were kept.
    folded.nfc().collect()
}

/// Zero-width joiner: makes one emoji of two.
const JOINER: char = '\u{200d}';

/// Returns whether a joiner next to this character can make another emoji. Between letters it changes only how they are
/// drawn.
fn is_joinable(c: char) -> bool {
    !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() && c != JOINER
}

/// Returns whether a mark over this letter is an accent that users leave out.
fn is_accent(base: char, mark: char) -> bool {
    const DIAERESIS: char = '\u{308}';
    let accents = matches!(
        mark,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
    );
    // Latin and Greek letters lose every mark. Of Cyrillic letters only ё loses its dots: й without its breve is
    // another letter. Marks of all other scripts are kept.
    match base {
        'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{3ff}' => accents,
        'е' | 'Е' => mark == DIAERESIS,
        _ => false,
    }
}

/// Returns whether a mark selects how a character is drawn, such as an emoji in color, and not which one it is.
fn is_variation_selector(mark: char) -> bool {
    matches!(mark, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Returns whether a character is an invisible mark: of direction, hyphenation, line breaking or byte order.
pub fn is_invisible(c: char) -> bool {
    // Not the zero-width joiner (U+200D): it changes which emoji is shown.
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
    )
}

/// Returns the straight form of a curly quote.
fn straighten_quote(c: char) -> char {
    match c {
        '‘' | '’' | '‛' | 'ʼ' => '\'',
        '“' | '”' | '„' | '‟' => '"',
        c => c,
    }
}

/// Signs around a word that are not part of it.
const PUNCTUATION: [char; 14] = [
    '.', ',', ';', ':', '!', '?', '(', ')', '"', '\'', '*', '_', '~', ' ',
];

/// Returns a folded text without the signs around it, so that `2.`, `(1)` and `_Bar_` match the option they mean.
///
/// A text of nothing but such signs is returned as it is.
pub fn trim_punctuation(folded: &str) -> &str {
    let trimmed = folded.trim_matches(PUNCTUATION);
    if trimmed.is_empty() { folded } else { trimmed }
}

/// Returns a text in the form in which keywords are compared: its folded words, with one space between them.
///
/// So `*STOP*`, `stop!` and `“Stop”` are `stop`, and `Opt-out.` is `opt out`. A text of signs without a word, such as an
/// emoji, is compared without the punctuation around it, and a text of nothing but punctuation is empty.
pub fn fold_phrase(text: &str) -> String {
    let folded = fold(text);
    let words = spaced_words(&folded);
    let words = words.trim();
    if !words.is_empty() {
        return words.to_owned();
    }
    folded.trim_matches(PUNCTUATION).to_owned()
}

/// Returns the words of a folded text, each with a space on either side.
///
/// WhatsApp's formatting marks, such as `_`, are not part of a word.
pub fn spaced_words(folded: &str) -> String {
    let mut words = String::with_capacity(folded.len() + 2);
    words.push(' ');
    // Split at `_` first: Unicode's word boundaries count it as part of a word, unlike `*` and `~`.
    for word in folded
        .split('_')
        .flat_map(UnicodeSegmentation::unicode_words)
    {
        // A mark without a letter belongs to the space before it, which is not part of the word.
        words.push_str(word.trim());
        words.push(' ');
    }
    words
}

/// Returns a text in the form against which patterns are matched: NFKC, without invisible marks, trimmed.
// Case, accents and quotes stay: a pattern can ask for them.
pub fn normalize(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_owned();
    }
    let text: String = text.nfkc().filter(|c| !is_invisible(*c)).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts of characters that folding treats in different ways.
    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "\\PC",
            "[a-zA-Zéßẞσςйе ]",
            "[\u{301}\u{306}\u{308}\u{345}\u{34f}\u{5b0}\u{5bc}\u{20e3}]",
            "[\u{200b}\u{200c}\u{200d}\u{feff}\u{fe0f}\u{ad}]",
            "[!.*_~'’“”👨👩🏳🌈❤]",
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in texts()) {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded.as_str(), "{:?}", text);
            let phrase = fold_phrase(&text);
            prop_assert_eq!(fold_phrase(&phrase), phrase.as_str(), "{:?}", text);
        }
    }

    // All planes with letters, symbols or marks.
    #[test]
    fn folding_each_character_twice_is_folding_it_once() {
        let chars = ('\0'..'\u{1fb00}').chain('\u{e0000}'..'\u{e01f0}');
        for c in chars {
            for text in [c.to_string(), format!("a{c}\u{301}")] {
                let folded = fold(&text);
                assert_eq!(fold(&folded), folded, "{text:?}");
            }
        }
    }

    #[test]
    fn fold_phrase_ignores_decorations() {
        for text in [
            "*STOP*",
            "stop!",
            "¡Stop!",
            "“Stop”",
            "(stop)",
            "stop…",
            "S\u{200d}T\u{200b}O\u{ad}P",
            "ｓｔｏｐ。",
            "STÓP",
            "𝐒𝐓𝐎𝐏",
            "> stop",
            "_~stop~_",
            "`stop`",
        ] {
            assert_eq!(fold_phrase(text), "stop", "{text:?}");
        }
        for (text, phrase) in [
            ("Opt-out.", "opt out"),
            (" dar  de\nBAJA!", "dar de baja"),
            ("🛑!", "🛑"),
            ("...", ""),
            ("\u{200b}", ""),
            ("stop it", "stop it"),
        ] {
            assert_eq!(fold_phrase(text), phrase, "{text:?}");
        }
    }

    // Marks that make another letter, as in й, are kept.
    #[test]
    fn fold_ignores_case_accents_width_and_spaces() {
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
            ("S\u{200d}T\u{ad}O\u{34f}P", "stop"),
            ("ẞ", "ss"),
        ] {
            assert_eq!(fold(one), fold(other), "{one:?} {other:?}");
        }
        for (one, other) in [
            ("мой", "мои"),
            ("が", "か"),
            ("ping", "pong"),
            ("ab", "a b"),
            ("👨\u{200d}👩", "👨👩"),
            ("❤\u{fe0f}\u{200d}🔥", "❤🔥"),
        ] {
            assert_ne!(fold(one), fold(other), "{one:?} {other:?}");
        }
    }

    // Each word has one space on either side, so that whole words can be searched.
    #[test]
    fn spaced_words_drops_punctuation_around_words() {
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
