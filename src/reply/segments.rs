//! Into how many SMS a text is cut, which is how it is paid for.

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

/// Counts the segments of a text: 160 GSM-7 characters or 70 UTF-16 units in one, 153 or 67 in each of several.
///
/// Source: Twilio's "SMS character limit" and 3GPP TS 23.038.
///
/// ```
/// # use replyhook::reply::segments;
/// assert_eq!(segments("hello").count, 1);
/// assert_eq!(segments(&"x".repeat(161)).count, 2);
/// assert_eq!(segments("wait… what").forces_ucs2, Some('…'));
/// ```
pub fn segments(text: &str) -> Segments {
    let forces_ucs2 = text.chars().find(|c| septets(*c).is_none());
    let (length, one, several) = if forces_ucs2.is_some() {
        (text.encode_utf16().count(), 70, 67)
    } else {
        (text.chars().filter_map(septets).sum(), 160, 153)
    };
    let count = if length <= one {
        1
    } else {
        length.div_ceil(several)
    };
    Segments { count, forces_ucs2 }
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
        ] {
            assert_eq!(
                segments(&text).count,
                count,
                "{} characters",
                text.chars().count()
            );
        }
    }
}
