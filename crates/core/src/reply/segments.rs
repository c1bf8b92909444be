//! Counting of SMS segments, the unit in which SMS are billed.

use unicode_segmentation::UnicodeSegmentation;

/// Number and encoding of the segments of an SMS.
///
/// See [`segments`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Number of segments; 1 for an empty text.
    pub count: usize,
    /// First character that GSM-7 lacks, if any. It forces UCS-2, in which a segment holds 67 characters instead of
    /// 153.
    pub forces_ucs2: Option<char>,
}

/// Counts the SMS segments of a text.
///
/// A single segment holds 160 GSM-7 characters or 70 UTF-16 units. Each of several segments holds 153 or 67. Segments
/// are filled in order, and a grapheme is not divided. So each of several segments holds 33 emoji of two units each,
/// and one unit stays free.
///
/// Source: Twilio's "SMS character limit" and its segment calculator (`TwilioDevEd/message-segment-calculator`), and
/// 3GPP TS 23.038.
///
/// ```
/// # use replyhook::reply::segments;
/// assert_eq!(segments("hello").count, 1);
/// assert_eq!(segments(&"x".repeat(161)).count, 2);
/// assert_eq!(segments("wait… what").forces_ucs2, Some('…'));
/// assert_eq!(segments(&"👍".repeat(67)).count, 3);
/// ```
pub fn segments(text: &str) -> Segments {
    // A single character outside GSM-7 changes the encoding of the whole text.
    let forces_ucs2 = text.chars().find(|c| septets(*c).is_none());
    let (size, single_size, multi_size): (fn(char) -> usize, _, _) = if forces_ucs2.is_some() {
        (char::len_utf16, 70, 67)
    } else {
        (|c| septets(c).unwrap_or(1), 160, 153)
    };
    let count = if text.chars().map(size).sum::<usize>() <= single_size {
        1
    } else {
        count_filled(text, size, multi_size)
    };
    Segments { count, forces_ucs2 }
}

/// Counts segments of `max_units` units each, filled in order.
fn count_filled(text: &str, size: fn(char) -> usize, max_units: usize) -> usize {
    let (mut count, mut free) = (1, max_units);
    let mut put = |size: usize| {
        if size > free {
            count += 1;
            free = max_units;
        }
        free -= size;
    };
    for grapheme in text.graphemes(true) {
        let grapheme_units: usize = grapheme.chars().map(size).sum();
        // A grapheme larger than a segment must be divided. CR LF is one grapheme but two characters, and may be
        // divided.
        if grapheme_units <= max_units && grapheme != "\r\n" {
            put(grapheme_units);
        } else {
            grapheme.chars().for_each(|c| put(size(c)));
        }
    }
    count
}

/// Returns the number of septets of a character in GSM-7, or `None` if GSM-7 does not have it.
fn septets(c: char) -> Option<usize> {
    const BASIC: &str =
        "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ÄÖÑÜ§¿äöñüà";
    match c {
        'a'..='z' | 'A'..='Z' => Some(1),
        // The extension table of TS 23.038: an escape precedes each of these.
        '^' | '{' | '}' | '\\' | '[' | '~' | ']' | '|' | '€' | '\u{c}' => Some(2),
        c => BASIC.contains(c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sms_segments_are_counted_like_carriers() {
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
            // A character of two units is not divided: it fills 66 of 67, or 152 of 153.
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
            // A flag has four units, so that 64 of 67 are filled. CR and LF count one each.
            ("🇮🇹".repeat(32), 2),
            ("🇮🇹".repeat(33), 3),
            ("\r\n".repeat(153), 2),
            // A letter with so many accents is one grapheme, larger than a segment.
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

    /// Minimum number of segments for characters of these sizes, over all possible cuts.
    fn min_segments(sizes: &[usize], max_units: usize) -> usize {
        let mut min_segments = vec![0];
        for end in 1..=sizes.len() {
            let mut length = 0;
            let starts = (0..end).rev().take_while(|start| {
                length += sizes[*start];
                length <= max_units
            });
            let min = starts.map(|start| min_segments[start] + 1).min();
            min_segments.push(min.unwrap());
        }
        min_segments[sizes.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        // The reference is the minimum over all possible cuts.
        #[test]
        fn sms_segment_count_is_minimal(gsm7 in "[a€]{161,900}", ucs2 in "ж(a|ж|👍|🇮🇹 ){71,400}") {
            let sizes: Vec<_> = gsm7.chars().filter_map(septets).collect();
            prop_assert_eq!(segments(&gsm7).count, min_segments(&sizes, 153));
            let sizes: Vec<_> = ucs2.graphemes(true).map(|part| part.encode_utf16().count()).collect();
            prop_assert_eq!(segments(&ucs2).count, min_segments(&sizes, 67));
        }
    }
}
