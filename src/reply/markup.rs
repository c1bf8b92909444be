//! WhatsApp's markup, and how a text shows without it.

use std::borrow::Cow;

/// Takes no room, and no line ends at it.
const WORD_JOINER: char = '\u{2060}';
/// What makes bold, italic, struck out and monospaced text.
const MARKS: [char; 4] = ['*', '_', '~', '`'];

/// A text as WhatsApp shows it to the letter: `2*3*4` without a bold 3, `- no` as it is and not as a list.
///
/// WhatsApp has no sign that takes the meaning from a mark, so an invisible character (U+2060) is put around each, and before
/// what makes a list or a quotation of a line. Use it for what others wrote (names, search words, files), and on WhatsApp
/// alone: elsewhere there is no markup, and an SMS with U+2060 in it holds 70 characters.
///
/// Source of the marks: WhatsApp's "How to format your messages". That it has no escape, and that this character
/// helps, is what bots in the field go by; Twilio and WhatsApp do not document it.
///
/// ```
/// use replyhook::reply::escape_markup;
///
/// let name = escape_markup("*Ana*");
/// assert_eq!(name, "\u{2060}*\u{2060}Ana\u{2060}*\u{2060}");
/// assert_eq!(escape_markup("2 + 3"), "2 + 3");
/// ```
pub fn escape_markup(text: &str) -> Cow<'_, str> {
    let is_plain = !text.contains(MARKS) && !text.lines().any(begins_block);
    if is_plain {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for line in text.split_inclusive('\n') {
        if begins_block(line) {
            escaped.push(WORD_JOINER);
        }
        let mut in_marks = false;
        for c in line.chars() {
            let is_mark = MARKS.contains(&c);
            if is_mark != in_marks {
                escaped.push(WORD_JOINER);
            }
            in_marks = is_mark;
            escaped.push(c);
        }
        if in_marks {
            escaped.push(WORD_JOINER);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a line is shown as an entry of a list, or as a quotation.
fn begins_block(line: &str) -> bool {
    let line = line.trim_start();
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered = digits.len() < line.len() && digits.starts_with(". ");
    is_numbered || line.starts_with("- ") || line.starts_with("> ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_stand_alone_and_lines_begin_no_block() {
        let shown = |text: &str| escape_markup(text).replace(WORD_JOINER, "|");
        for (text, escaped) in [
            ("plain text, 3 - 2 > 0", "plain text, 3 - 2 > 0"),
            ("a_b", "a|_|b"),
            ("```x```", "|```|x|```|"),
            ("*_~`", "|*_~`|"),
            ("- a\n> b\n12. c\nd", "|- a\n|> b\n|12. c\nd"),
            ("* a", "|*| a"),
            ("3.5 kg", "3.5 kg"),
        ] {
            assert_eq!(shown(text), escaped, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_changes(text in "[a*_~`>. \n0-9-]{0,40}|\\PC{0,40}") {
            prop_assume!(!text.contains(WORD_JOINER));
            prop_assert_eq!(escape_markup(&text).replace(WORD_JOINER, ""), text);
        }
    }
}
