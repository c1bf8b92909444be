//! Unpaired surrogates in JSON, such as `"\ud83d"` alone: JavaScript writes them for a text that was cut inside a
//! character. No Rust string can hold them.

/// Length of an escape, `\u` and four hexadecimal digits.
const ESCAPE_BYTES: usize = 6;

/// Replaces each unpaired surrogate by the escape of U+FFFD, in place. Other bytes stay where they are, so that the
/// position of a later error is that in the response.
pub(crate) fn replace_unpaired_surrogates(json: &mut [u8]) {
    let mut at = 0;
    // Only a string contains a backslash. Outside of one the JSON is invalid, and its reader says so.
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        let unit = escaped_unit(&json[at..]);
        let is_pair = matches!(unit, Some(0xD800..=0xDBFF))
            && matches!(
                json.get(at + ESCAPE_BYTES..).and_then(escaped_unit),
                Some(0xDC00..=0xDFFF)
            );
        at += match unit {
            Some(_) if is_pair => 2 * ESCAPE_BYTES,
            Some(0xD800..=0xDFFF) => {
                json[at..at + ESCAPE_BYTES].copy_from_slice(b"\\uFFFD");
                ESCAPE_BYTES
            }
            Some(_) => ESCAPE_BYTES,
            // The backslash and the byte that it escapes, which may be another backslash.
            None => 2,
        };
        if at >= json.len() {
            break;
        }
    }
}

/// Returns the UTF-16 unit of the escape `\uXXXX` at the beginning.
fn escaped_unit(json: &[u8]) -> Option<u16> {
    let digits = json.get(..ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    // `from_str_radix` accepts a sign.
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unpaired_surrogates_become_replacement_characters() {
        for (json, expected) in [
            (r#""x \ud83d y""#, "x \u{FFFD} y"),
            (r#""\uD83D\uDC4D""#, "👍"),
            (r#""\uDC4D\uD83D""#, "\u{FFFD}\u{FFFD}"),
            (r#""\ud83d\ud83d\udc4d""#, "\u{FFFD}👍"),
            (r#""\\ud83d \\\ud83d""#, "\\ud83d \\\u{FFFD}"),
            (r#""\ud83d\n""#, "\u{FFFD}\n"),
            (r#""\u00e9\"""#, "é\""),
        ] {
            let mut bytes = json.as_bytes().to_vec();
            replace_unpaired_surrogates(&mut bytes);
            let text: String = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(text, expected, "{json}");
        }
    }

    proptest! {
        // Valid JSON stays unchanged, and no input panics.
        #[test]
        fn valid_json_is_unchanged(text in any::<String>(), units in prop::collection::vec(any::<u16>(), 0..20)) {
            let written = serde_json::to_vec(&text).unwrap();
            let mut replaced = written.clone();
            replace_unpaired_surrogates(&mut replaced);
            prop_assert_eq!(&replaced, &written);
            // The JSON of a JavaScript string of any units.
            let escapes: Vec<_> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let escapes = escapes.concat();
            let mut json = format!("\"{escapes}\"").into_bytes();
            replace_unpaired_surrogates(&mut json);
            let read: String = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
            let mut odd = escapes.into_bytes();
            odd.truncate(odd.len().saturating_sub(2));
            replace_unpaired_surrogates(&mut odd);
        }
    }
}
