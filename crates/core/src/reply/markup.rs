//! Escaping of WhatsApp's markup.

use std::borrow::Cow;

/// Invisible character without width, at which a line is not broken.
pub(super) const WORD_JOINER: char = '\u{2060}';
/// Marks of bold, italic, struck-out and monospaced text.
const MARKS: [char; 4] = ['*', '_', '~', '`'];

/// Escapes a text so that WhatsApp shows it literally: `2*3*4` without a bold 3, `- no` without a list.
///
/// WhatsApp does not have an escape character. So the function puts an invisible character (U+2060) around each mark,
/// and before the beginning of a list entry or quotation. Use it for text from other sources, such as names, search
/// words and file names. Use it on WhatsApp only: other channels do not have this markup, and an SMS with U+2060 holds
/// only 70 characters.
///
/// Source of the marks: WhatsApp's "How to format your messages". The missing escape character and the effect of U+2060
/// are known from other bots; neither Twilio nor WhatsApp documents them.
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
        // One word joiner on either side of a run of marks, such as "```", suffices.
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

/// Returns true if WhatsApp shows the line as a list entry or a quotation.
fn begins_block(line: &str) -> bool {
    // `* ` also begins a list entry; it is escaped as a mark.
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
    fn escape_markup_disables_marks_and_block_prefixes() {
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
        fn escape_markup_adds_only_word_joiners(text in "[a*_~`>. \n0-9-]{0,40}|\\PC{0,40}") {
            // Word joiners of the text itself would be removed below as well.
            prop_assume!(!text.contains(WORD_JOINER));
            prop_assert_eq!(escape_markup(&text).replace(WORD_JOINER, ""), text);
        }
    }
}
