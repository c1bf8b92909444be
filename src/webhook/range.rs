//! `Range`, as RFC 9110 (14.2) has it: one at a time.

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: nothing else is asked for, or several parts at once, or something that is no range.
    Whole,
    /// From the first byte to before the second; there is at least one.
    Part { from: u64, to: u64 },
    /// What it does not have.
    Outside,
}

/// What a header asks for, of a file of so many bytes.
pub(super) fn range(header: Option<&str>, length: u64) -> Range {
    let spec = header.and_then(|header| header.trim().strip_prefix("bytes="));
    let Some((from, to)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return Range::Whole;
    };
    // A number that is too large for this machine is larger than any file.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from > to => Range::Whole,
        (Some(from), to) if to.is_some() || spec.is_some_and(|spec| spec.ends_with('-')) => {
            if from >= length {
                return Range::Outside;
            }
            let to = to.unwrap_or(u64::MAX).saturating_add(1).min(length);
            Range::Part { from, to }
        }
        (None, Some(last)) if from.is_empty() => {
            if last == 0 || length == 0 {
                return Range::Outside;
            }
            let from = length.saturating_sub(last);
            Range::Part { from, to: length }
        }
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_given_and_anything_odd_is_the_whole() {
        let part = |from, to| Range::Part { from, to };
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=3-5", part(3, 6)),
            ("bytes=9-99", part(9, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=99999999999999999999999-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-3", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=1-x", Range::Whole),
            ("items=0-1", Range::Whole),
            ("", Range::Whole),
        ] {
            assert_eq!(range(Some(header), 10), expected, "{header}");
        }
        assert_eq!(range(None, 10), Range::Whole);
        assert_eq!(range(Some("bytes=0-"), 0), Range::Outside);
    }
}
