//! Cost of matching a pattern: the number of its positions that may be active at the same time.
//!
//! For each character of a text, the regex engine advances every position of the pattern that is active there. Its
//! caches save most of that work, but a text can be written so that they do not, and so the cost ignores them. A
//! pattern that begins with `^` is matched from the beginning of the text only. Any other pattern is matched from every
//! character on, so that all of its positions may become active.

#[cfg(feature = "rules")]
use regex_syntax::hir::Class;
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};
#[cfg(feature = "rules")]
use regex_syntax::utf8::Utf8Sequences;
use regex_syntax::{Error, ParserBuilder};

/// Parses a pattern, case-insensitively as routes match it.
pub(super) fn parse(pattern: &str) -> Result<Hir, Box<Error>> {
    let mut parser = ParserBuilder::new().case_insensitive(true).build();
    parser.parse(pattern).map_err(Box::new)
}

/// Returns an upper bound of the positions that are active at the same time.
pub(super) fn cost(pattern: &Hir) -> u64 {
    let part = PatternPart::from_hir(pattern);
    let is_anchored = pattern.properties().look_set_prefix().contains(Look::Start);
    if is_anchored {
        part.active_per_start
    } else {
        part.positions
    }
}

/// Estimates the compiled size of a pattern in bytes.
// The regex crate does not tell it. It compiles a character class to ranges of bytes, which take 15 to 45 bytes each in
// measured patterns, and a repetition to copies.
#[cfg(feature = "rules")]
pub(super) fn estimate_size(pattern: &Hir) -> usize {
    const BYTES_PER_RANGE: usize = 24;
    // For the parts of a compiled pattern that do not depend on its length.
    const MIN_BYTES: usize = 16 * 1024;
    count_byte_ranges(pattern)
        .saturating_mul(BYTES_PER_RANGE)
        .saturating_add(MIN_BYTES)
}

#[cfg(feature = "rules")]
fn count_byte_ranges(pattern: &Hir) -> usize {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.iter();
            let sequences = ranges.flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
            sequences.map(|sequence| sequence.len()).sum()
        }
        HirKind::Capture(group) => count_byte_ranges(&group.sub).saturating_add(1),
        HirKind::Repetition(repetition) => {
            count_byte_ranges(&repetition.sub).saturating_mul(copies(repetition) as usize)
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts
            .iter()
            .map(count_byte_ranges)
            .fold(0, usize::saturating_add),
    }
}

/// Returns the number of copies of the repeated part in the compiled pattern.
// The engine compiles `x{2,5}` to five copies of `x`, but `x+` and `x*` to one with a loop.
fn copies(repetition: &Repetition) -> u32 {
    repetition.max.unwrap_or(repetition.min).max(1)
}

/// Cost and length of a part of a pattern.
#[derive(Clone, Copy)]
struct PatternPart {
    /// Number of positions. The engine matches bytes, so a character counts as many as it may have bytes.
    positions: u64,
    /// Maximum number of active positions if the part starts at a single position of the text.
    active_per_start: u64,
    /// Minimum length of a match, in characters.
    min_length: u64,
    /// Maximum length of a match, in characters; `None` if it is unlimited.
    max_length: Option<u64>,
}

impl PatternPart {
    fn from_hir(pattern: &Hir) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::fixed(0, 1),
            HirKind::Literal(literal) => {
                let characters = String::from_utf8_lossy(&literal.0).chars().count();
                Self {
                    positions: literal.0.len() as u64,
                    ..Self::fixed(characters as u64, 1)
                }
            }
            HirKind::Class(class) => Self::fixed(1, class.maximum_len().unwrap_or(1) as u64),
            HirKind::Capture(group) => {
                let inside = Self::from_hir(&group.sub);
                Self {
                    positions: inside.positions.saturating_add(1),
                    active_per_start: inside.active_per_start.saturating_add(1),
                    ..inside
                }
            }
            HirKind::Alternation(parts) => {
                let parts = parts.iter().map(Self::from_hir);
                parts
                    .reduce(Self::add_alternative)
                    .unwrap_or(Self::fixed(0, 1))
            }
            HirKind::Concat(parts) => Self::concat(parts),
            HirKind::Repetition(repetition) => Self::repeat(repetition),
        }
    }

    fn fixed(characters: u64, positions: u64) -> Self {
        Self {
            positions,
            active_per_start: positions,
            min_length: characters,
            max_length: Some(characters),
        }
    }

    /// Returns the number of text positions at which a match may end, less one; `None` if it is unlimited.
    fn length_range(&self) -> Option<u64> {
        self.max_length
            .map(|max_length| max_length - self.min_length)
    }

    fn add_alternative(self, other: Self) -> Self {
        // Alternatives are active together, so their costs add up.
        let both = self.max_length.zip(other.max_length);
        Self {
            positions: self.positions.saturating_add(other.positions),
            active_per_start: self.active_per_start.saturating_add(other.active_per_start),
            min_length: self.min_length.min(other.min_length),
            max_length: both.map(|(one, other)| one.max(other)),
        }
    }

    fn concat(parts: &[Hir]) -> Self {
        let mut whole = Self {
            positions: 0,
            ..Self::fixed(0, 0)
        };
        // Parts of fixed length after a prefix of fixed length start at one text position each. Only one of them is
        // active at a time, so only the most expensive one counts.
        let mut max_fixed_cost = 0;
        for part in parts.iter().map(Self::from_hir) {
            match whole.length_range() {
                Some(0) if part.length_range() == Some(0) => {
                    max_fixed_cost = part.active_per_start.max(max_fixed_cost);
                }
                // The part may start at `length_range + 1` text positions. All of its positions are the upper bound.
                Some(length_range) => {
                    let reachable = part
                        .active_per_start
                        .saturating_mul(length_range.saturating_add(1));
                    whole.active_per_start = whole
                        .active_per_start
                        .saturating_add(reachable.min(part.positions));
                }
                // The part may start anywhere, so that all of its positions may be active.
                None => {
                    whole.active_per_start = whole.active_per_start.saturating_add(part.positions);
                }
            }
            whole.positions = whole.positions.saturating_add(part.positions);
            whole.min_length = whole.min_length.saturating_add(part.min_length);
            let both = whole.max_length.zip(part.max_length);
            whole.max_length = both.map(|(one, other)| one.saturating_add(other));
        }
        whole.active_per_start = whole
            .active_per_start
            .saturating_add(max_fixed_cost)
            .min(whole.positions);
        whole
    }

    fn repeat(repetition: &Repetition) -> Self {
        let part = Self::from_hir(&repetition.sub);
        let positions = part.positions.saturating_mul(copies(repetition).into());
        // Copies of a fixed length start one after the other, so only one of them is active at a time. Copies that are
        // empty, or that vary in length, may all be active at the same text position.
        let is_sequential = part.length_range() == Some(0) && part.min_length > 0;
        let both = repetition.max.map(u64::from).zip(part.max_length);
        Self {
            positions,
            active_per_start: if is_sequential {
                part.active_per_start
            } else {
                positions
            },
            min_length: part.min_length.saturating_mul(repetition.min.into()),
            max_length: both.map(|(times, length)| length.saturating_mul(times)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost_of(pattern: &str) -> u64 {
        cost(&parse(pattern).unwrap())
    }

    // Common patterns stay far below the limit; large nested or adjacent repetitions exceed it.
    #[test]
    fn pattern_cost_separates_common_and_expensive_patterns() {
        for pattern in [
            r"^\w{8}$",
            r"^order (?<id>\d+)( for (?<name>\w+))?$",
            r"^feedback (.{1,500})$",
            r"^.{1,1600}$",
            r"say (?<what>.*)",
            r"\S+@\S+\.\S+",
            r"(?i)^name: \w{1,20}, mail: \S{1,90}$",
            r"\w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+",
            r"\b[A-Z]{2}\d{2}( ?[A-Z0-9]{4}){2,7}\b",
            "(hello|hi|hey|good (morning|evening|afternoon)|hola|buenos d[ií]as)",
        ] {
            assert!(cost_of(pattern) < 150, "{pattern}: {}", cost_of(pattern));
        }
        for pattern in [
            "([ab]{1,5000}){1,2}c",
            "^([ab]{1,5000}){1,2}c$",
            "^a?[ab]{1,500}[ab]{1,500}$",
            "[ab]*a[ab]{1000}c",
            ".{0,1000}!",
            "((((a?)?){10}){10}){10}",
            "(?:[ab]{1,30}[ab]{1,30}){1,20}c",
            "^a|(b{1,1000}){1,1000}",
        ] {
            assert!(cost_of(pattern) > 400, "{pattern}: {}", cost_of(pattern));
        }
    }
}
