//! Conversion of Markdown, as language models write it, into WhatsApp's marks or plain text.
//!
//! The subset of `CommonMark`: headings, bold, italic, strikethrough, links, pictures, code and escapes. Everything else,
//! such as lists and quotations, stays as it is. Marks are matched within one line, since WhatsApp's do not span lines.
//! The time is linear in the length of the text, whatever it contains.

use std::borrow::Cow;

use super::inline_markdown::InlineMarkdown;
use crate::address::Channel;

/// Minimum length of the marks around a block of code.
const FENCE: usize = 3;

/// Converts Markdown into the marks of a channel: WhatsApp's on WhatsApp, and plain text on other channels.
///
/// `**bold**` becomes `*bold*` on WhatsApp, `*italic*` becomes `_italic_`, `~~gone~~` becomes `~gone~`, and a heading is
/// bold. A link `[text](url)` becomes `text (url)` on every channel. Code stays as it is.
/// [`ReplyMessage::markdown`](super::ReplyMessage::markdown) converts the text of a reply when its channel is known.
///
/// ```
/// use replyhook::Channel;
/// use replyhook::reply::convert_markdown;
///
/// let text = "## Menu\n**Soup** of the [day](https://example.com/d)";
/// assert_eq!(
///     convert_markdown(text, &Channel::WhatsApp),
///     "*Menu*\n*Soup* of the day (https://example.com/d)",
/// );
/// assert_eq!(convert_markdown(text, &Channel::Sms), "Menu\nSoup of the day (https://example.com/d)");
/// ```
pub fn convert_markdown<'t>(text: &'t str, channel: &Channel) -> Cow<'t, str> {
    // A text without any of these has no Markdown.
    if !text.contains(['*', '_', '~', '`', '[', '#', '\\']) {
        return Cow::Borrowed(text);
    }
    let inline = InlineMarkdown {
        has_marks: *channel == Channel::WhatsApp,
    };
    let mut converted = String::with_capacity(text.len());
    let mut open_fence = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let line_end = &line[content.len()..];
        match (&open_fence, Fence::parse(content)) {
            (Some(open), Some(fence)) if fence.closes(open) => {
                push_fence(&mut converted, &fence, line_end, &inline);
                open_fence = None;
            }
            (Some(_), _) => converted.push_str(line),
            (None, Some(fence)) => {
                push_fence(&mut converted, &fence, line_end, &inline);
                open_fence = Some(fence);
            }
            (None, None) => {
                match heading(content) {
                    Some(heading) => inline.convert_bold(heading, &mut converted),
                    None => inline.convert(content, &mut converted),
                }
                converted.push_str(line_end);
            }
        }
    }
    Cow::Owned(converted)
}

/// First or last line of a block of code.
struct Fence<'t> {
    mark: char,
    length: usize,
    /// Text after the marks, such as the language.
    info: &'t str,
}

impl<'t> Fence<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let line = line.trim();
        let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = line.trim_start_matches(mark);
        let length = line.len() - info.len();
        // "```code```" in one line is inline code.
        (length >= FENCE && !info.contains(mark)).then_some(Self {
            mark,
            length,
            info: info.trim(),
        })
    }

    fn closes(&self, open: &Fence<'_>) -> bool {
        self.mark == open.mark && self.length >= open.length && self.info.is_empty()
    }
}

/// Writes a line of marks in WhatsApp's form. Plain text has only the language, if there is one.
fn push_fence(converted: &mut String, fence: &Fence<'_>, line_end: &str, inline: &InlineMarkdown) {
    if inline.has_marks {
        converted.push_str("```");
    } else if fence.info.is_empty() {
        // The line is left out. At the end of the text, so is the line break before it.
        if line_end.is_empty() {
            let kept = converted.strip_suffix('\n').unwrap_or(converted);
            converted.truncate(kept.trim_end_matches('\r').len());
        }
        return;
    }
    converted.push_str(fence.info);
    converted.push_str(line_end);
}

/// Returns the text of a heading, such as `## Text ##`.
fn heading(line: &str) -> Option<&str> {
    let marks = line.trim_start();
    let text = marks.trim_start_matches('#');
    // `#42` and `#tag` are not headings.
    let is_heading = (1..=6).contains(&(marks.len() - text.len())) && text.starts_with([' ', '\t']);
    let text = text.trim();
    let without_end = text.trim_end_matches('#');
    // `C#` at the end belongs to the text.
    let text = if without_end.ends_with([' ', '\t']) {
        without_end.trim_end()
    } else {
        text
    };
    (is_heading && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whatsapp(text: &str) -> String {
        convert_markdown(text, &Channel::WhatsApp).into_owned()
    }

    fn plain(text: &str) -> String {
        convert_markdown(text, &Channel::Sms).into_owned()
    }

    #[test]
    fn markdown_becomes_marks_or_plain_text() {
        for (markdown, marked, unmarked) in [
            (
                "**bold** and __bold__",
                "*bold* and *bold*",
                "bold and bold",
            ),
            ("*it* and _it_", "_it_ and _it_", "it and it"),
            ("***both***", "*_both_*", "both"),
            ("**bold *and it***", "*bold _and it_*", "bold and it"),
            ("~~gone~~", "~gone~", "gone"),
            ("`a*b*` **c**", "`a*b*` *c*", "a*b* c"),
            ("``a`b``", "``a`b``", "a`b"),
            ("# One\n###### Two ##\n", "*One*\n*Two*\n", "One\nTwo\n"),
            ("# **One** of C#", "*One of C#*", "One of C#"),
            (
                "[x](https://h/a_b_c)",
                "x (https://h/a_b_c)",
                "x (https://h/a_b_c)",
            ),
            ("[**x**](u)", "*x* (u)", "x (u)"),
            ("[https://h](https://h)", "https://h", "https://h"),
            ("[x](<u>) [](u) [x]()", "x (u) u x", "x (u) u x"),
            ("[x](u \"Title\")", "x (u \"Title\")", "x (u \"Title\")"),
            (
                "[a](w_(b)) [c [d]](e)",
                "a (w_(b)) c [d] (e)",
                "a (w_(b)) c [d] (e)",
            ),
            (
                "![cat](https://h/c.png)",
                "cat (https://h/c.png)",
                "cat (https://h/c.png)",
            ),
            (
                "**https://h/a_b** _https://h/_",
                "*https://h/a_b* _https://h/_",
                "https://h/a_b https://h/",
            ),
            ("\\*a\\* \\_b", "*a* _b", "*a* _b"),
            (
                "a\n```rust\n**x**\n```\nb",
                "a\n```rust\n**x**\n```\nb",
                "a\nrust\n**x**\nb",
            ),
            ("~~~\r\n# x\r\n~~~", "```\r\n# x\r\n```", "# x"),
            ("```\n*x*", "```\n*x*", "*x*"),
            ("这是**重点**内容", "这是*重点*内容", "这是重点内容"),
            (
                "* **Soup**: 3 €\n1. _Tea_",
                "* *Soup*: 3 €\n1. _Tea_",
                "* Soup: 3 €\n1. Tea",
            ),
        ] {
            assert_eq!(whatsapp(markdown), marked, "{markdown}");
            assert_eq!(plain(markdown), unmarked, "{markdown}");
        }
    }

    #[test]
    fn text_without_markdown_is_unchanged() {
        for text in [
            "snake_case_name, 2*3*4, 2 * 3 * 4, 2**3**4",
            "* item\n* item\n- item\n+ item\n> quote",
            "#42 #tag ####### seven",
            "[1] (2), [x] y, a[0](",
            "** a ** _ b _ ~~ c ~~ ~d~",
            "**open\nclose**",
            "C:\\dir\\file 100%",
            "a ` b",
            "****",
            "\u{2060}*\u{2060}Ana\u{2060}*\u{2060}",
        ] {
            assert_eq!(whatsapp(text), text);
            assert_eq!(plain(text), text);
        }
    }

    // A reply may have a megabyte. Each of these would take minutes if every mark searched the rest of the text.
    #[test]
    fn conversion_of_hostile_text_takes_linear_time() {
        let started = std::time::Instant::now();
        for part in [
            "*a ", "**a _b ", "[", "[a](", "`a``b", "![", "[a](b \"", "[a](b c", "\\", "https://",
            "[[a](b)",
        ] {
            let text = part.repeat(200_000 / part.len());
            whatsapp(&text);
            plain(&text);
        }
        let nested = "[".repeat(100_000) + &"](u)".repeat(100_000);
        whatsapp(&nested);
        whatsapp(&("[a](".repeat(100_000) + "b c" + &")".repeat(100_000)));
        let ticks: String = (1..500).map(|n| "`".repeat(n) + "a").collect();
        whatsapp(&ticks);
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }

    fn alphanumerics(text: &str) -> String {
        text.chars().filter(|c| c.is_alphanumeric()).collect()
    }

    proptest! {
        // Only marks are lost, and the second URL of a link whose text is the URL.
        #[test]
        fn letters_and_digits_are_kept(text in "([ab1é *_~`#>!\\\\\n.-]|\\*\\*|~~|```|\\[a|\\]\\(b|\\)|https://){0,40}|\\PC{0,60}") {
            for converted in [whatsapp(&text), plain(&text)] {
                if !text.contains("](") {
                    prop_assert_eq!(alphanumerics(&converted), alphanumerics(&text));
                }
                for c in text.chars().filter(|c| c.is_alphanumeric()) {
                    prop_assert!(converted.contains(c), "{c} of {text:?} is missing: {converted:?}");
                }
            }
        }

        #[test]
        fn plain_text_is_unchanged(text in "[\\p{L}\\p{N} .,;:?!()/+=%€\n\r\t'\"-]{0,80}") {
            prop_assert_eq!(whatsapp(&text), text.as_str());
            prop_assert_eq!(plain(&text), text.as_str());
        }
    }
}
