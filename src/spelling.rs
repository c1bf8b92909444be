//! Suggestions for misspelt words: "did you mean …?".

use strsim::damerau_levenshtein;

/// Returns the known word that a misspelt word is probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
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
        // One mistake in a short word, more in longer ones: beyond that a suggestion would rather confuse.
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}
