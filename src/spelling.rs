//! Suggestions for misspelt words: "did you mean …?".

use strsim::damerau_levenshtein;

/// Returns the known word that a misspelt word is probably meant to be.
#[cfg(feature = "app")]
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // One mistake in a short word, more in longer ones: beyond that a suggestion would rather confuse.
    nearest_within(word, known, |length| 1 + length / 4)
}

/// Returns the known word of which a word is almost certainly a misspelling, with at most one mistake in four letters.
// For words that are an error only if they are misspelt: with the limits of `nearest`, `code` would be a misspelt `body`.
pub(crate) fn misspelt<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    nearest_within(word, known, |length| length / 4)
}

fn nearest_within<'k>(
    word: &str,
    known: impl Iterator<Item = &'k str>,
    max_distance: fn(usize) -> usize,
) -> Option<&'k str> {
    // Much longer than any key. The distance takes time and memory proportional to the product of both lengths.
    const MAX: usize = 64;
    if word.len() > MAX {
        return None;
    }
    known
        .map(|known| {
            let is_same = known.eq_ignore_ascii_case(word);
            let distance = if is_same {
                0
            } else {
                damerau_levenshtein(word, known)
            };
            (distance, known)
        })
        .filter(|(distance, known)| *distance <= max_distance(known.len()))
        .min()
        .map(|(_, known)| known)
}
