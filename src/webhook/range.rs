//! The `Range` header of RFC 9110 (14.2), limited to one range.

/// The part of a file that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole file: the header is missing, malformed, or has several ranges.
    Whole,
    /// The bytes of `from..to`, which is never empty.
    Part { from: u64, to: u64 },
    /// No byte of the file.
    Outside,
}

/// Reads the value of a `Range` header, for a file of `length` bytes.
// RFC 9110 (14.2) lets a server ignore the header. So whatever is malformed or not supported gets the whole file, and
// only a valid range that the file does not have gets 416.
pub(super) fn parse_range(header: Option<&str>, length: u64) -> RequestedRange {
    let spec = header.and_then(|header| header.trim().strip_prefix("bytes="));
    let Some((from, to)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return RequestedRange::Whole;
    };
    // Digits alone: `parse` would accept a sign. A number beyond `u64` is larger than any file, and not malformed.
    let parse_number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (parse_number(from), parse_number(to)) {
        (Some(from), Some(to)) if from > to => RequestedRange::Whole,
        // `5-9` and `5-`. The guard excludes `5-x`, whose end is malformed and not missing.
        (Some(from), to) if to.is_some() || spec.is_some_and(|spec| spec.ends_with('-')) => {
            if from >= length {
                return RequestedRange::Outside;
            }
            // The header's end is inclusive, that of `Part` is not.
            let to = to.unwrap_or(u64::MAX).saturating_add(1).min(length);
            RequestedRange::Part { from, to }
        }
        (None, Some(last)) if from.is_empty() => {
            if last == 0 || length == 0 {
                return RequestedRange::Outside;
            }
            let from = length.saturating_sub(last);
            RequestedRange::Part { from, to: length }
        }
        _ => RequestedRange::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Malformed headers and several ranges get the whole file.
    #[test]
    fn single_range_is_served_otherwise_whole_file() {
        let part = |from, to| RequestedRange::Part { from, to };
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=3-5", part(3, 6)),
            ("bytes=9-99", part(9, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", RequestedRange::Outside),
            ("bytes=99999999999999999999999-", RequestedRange::Outside),
            ("bytes=-0", RequestedRange::Outside),
            ("bytes=5-3", RequestedRange::Whole),
            ("bytes=0-1,3-4", RequestedRange::Whole),
            ("bytes=a-b", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes=1-x", RequestedRange::Whole),
            ("items=0-1", RequestedRange::Whole),
            ("", RequestedRange::Whole),
        ] {
            assert_eq!(parse_range(Some(header), 10), expected, "{header}");
        }
        assert_eq!(parse_range(None, 10), RequestedRange::Whole);
        assert_eq!(parse_range(Some("bytes=0-"), 0), RequestedRange::Outside);
    }
}
