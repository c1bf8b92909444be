//! Range of a page in a list of the REST API.

use std::cmp::Ordering;
use std::ops::Range;

use replyhook_core::form::FormParams;

/// Returns the range of a page in `matching`. `compare` returns the order in the list of an item and a position.
///
/// A page token is `PA` and the position of the last item of the previous page, or `PB` and that of the first item of the
/// next page. Positions stay valid when items are added or deleted between two pages.
pub(super) fn page_range<T>(
    matching: &[T],
    query: &FormParams,
    page: usize,
    size: usize,
    compare: impl Fn(&T, u64) -> Ordering,
) -> Range<usize> {
    let token = |prefix: &str| {
        let position = query.get("PageToken")?.strip_prefix(prefix)?;
        position.parse::<u64>().ok()
    };
    let (begin, end) = match (token("PA"), token("PB")) {
        (Some(last_of_previous), _) => {
            let begin = matching.partition_point(|item| compare(item, last_of_previous).is_le());
            (begin, begin.saturating_add(size))
        }
        (None, Some(first_of_next)) => {
            let end = matching.partition_point(|item| compare(item, first_of_next).is_lt());
            (end.saturating_sub(size), end)
        }
        (None, None) => {
            let begin = page.saturating_mul(size);
            (begin, begin.saturating_add(size))
        }
    };
    let end = end.min(matching.len());
    begin.min(end)..end
}
