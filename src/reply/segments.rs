//! Into how many SMS a text is cut, which is how it is paid for.

use unicode_segmentation::UnicodeSegmentation;

/// How a text travels as SMS.
///
/// Counted by [`segments`], which has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// How many there are; an empty text is one.
    pub count: usize,
    /// The first character that GSM-7 lacks: because of it every segment holds 67 characters instead of 153.
    pub forces_ucs2: Option<char>,
}

/// Counts the segments of a text: 160 GSM-7 characters or 70 UTF-16 units in one, 153 or 67 in each of several. One segment
/// is filled after the other, and what a reader takes for one character is not divided: of emoji of two units each there are
/// 33 in each of several segments, and not 33 and a half.
///
/// Source: Twilio's "SMS character limit" and its segment calculator (`TwilioDevEd/message-segment-calculator`), and 3GPP
/// TS 23.038.
///
/// ```
/// # use replyhook::reply::segments;
/// assert_eq!(segments("hello").count, 1);
/// assert_eq!(segments(&"x".repeat(161)).count, 2);
/// assert_eq!(segments("wait… what").forces_ucs2, Some('…'));
/// assert_eq!(segments(&"👍".repeat(67)).count, 3);
/// ```
pub fn segments(text: &str) -> Segments {
    let forces_ucs2 = text.chars().find(|c| septets(*c).is_none());
    let (size, one, several): (fn(char) -> usize, _, _) = if forces_ucs2.is_some() {
        (char::len_utf16, 70, 67)
    } else {
        (|c| septets(c).unwrap_or(1), 160, 153)
    };
    let count = if text.chars().map(size).sum::<usize>() <= one {
        1
    } else {
        filled(text, size, several)
    };
    Segments { count, forces_ucs2 }
}

/// How many segments are filled, of which each holds so much.
fn filled(text: &str, size: fn(char) -> usize, most: usize) -> usize {
    let (mut count, mut free) = (1, most);
    let mut put = |size: usize| {
        if size > free {
            count += 1;
            free = most;
        }
        free -= size;
    };
    for grapheme in text.graphemes(true) {
        let whole: usize = grapheme.chars().map(size).sum();
        // One that fits nowhere is divided all the same; CR and LF are two.
        if whole <= most && grapheme != "\r\n" {
            put(whole);
        } else {
            grapheme.chars().for_each(|c| put(size(c)));
        }
    }
    count
}

/// What a character takes in GSM-7; `None` where it has no place there.
fn septets(c: char) -> Option<usize> {
    const BASIC: &str =
        "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ÄÖÑÜ§¿äöñüà";
    match c {
        'a'..='z' | 'A'..='Z' => Some(1),
        '^' | '{' | '}' | '\\' | '[' | '~' | ']' | '|' | '€' | '\u{c}' => Some(2),
        c => BASIC.contains(c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_cut_where_carriers_cut_them() {
        for (text, count) in [
            (String::new(), 1),
            ("x".repeat(160), 1),
            ("x".repeat(161), 2),
            ("x".repeat(306), 2),
            ("x".repeat(307), 3),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("ж".repeat(70), 1),
            ("ж".repeat(71), 2),
            ("👍".repeat(35), 1),
            ("👍".repeat(36), 2),
            // What takes two places is not divided: 66 of 67, 152 of 153.
            ("👍".repeat(66), 2),
            ("👍".repeat(67), 3),
            ("👍".repeat(99), 3),
            ("👍".repeat(100), 4),
            ("€".repeat(152), 2),
            ("€".repeat(153), 3),
            (format!("x{}", "€".repeat(152)), 2),
            (format!("x{}", "€".repeat(153)), 3),
            ("ж".repeat(134), 2),
            ("ж".repeat(135), 3),
            // A flag is four units, of which 64 are filled; a CR and an LF are a place each.
            ("🇮🇹".repeat(32), 2),
            ("🇮🇹".repeat(33), 3),
            ("\r\n".repeat(153), 2),
            // So many accents are on no letter that anybody reads.
            (format!("a{}", "\u{301}".repeat(133)), 2),
            (format!("a{}", "\u{301}".repeat(134)), 3),
        ] {
            assert_eq!(
                segments(&text).count,
                count,
                "{} characters",
                text.chars().count()
            );
        }
    }

    /// The fewest segments into which characters of these sizes can be cut, whatever is tried.
    fn fewest(sizes: &[usize], most: usize) -> usize {
        let mut fewest = vec![0];
        for end in 1..=sizes.len() {
            let mut length = 0;
            let begins = (0..end).rev().take_while(|begin| {
                length += sizes[*begin];
                length <= most
            });
            let least = begins.map(|begin| fewest[begin] + 1).min();
            fewest.push(least.unwrap());
        }
        fewest[sizes.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn as_many_are_counted_as_are_filled(gsm7 in "[a€]{161,900}", ucs2 in "ж(a|ж|👍|🇮🇹 ){71,400}") {
            let sizes: Vec<_> = gsm7.chars().filter_map(septets).collect();
            prop_assert_eq!(segments(&gsm7).count, fewest(&sizes, 153));
            let sizes: Vec<_> = ucs2.graphemes(true).map(|part| part.encode_utf16().count()).collect();
            prop_assert_eq!(segments(&ucs2).count, fewest(&sizes, 67));
        }
    }
}
