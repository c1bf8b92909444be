//! Cost of matching a pattern: the number of its positions that may be active at the same time.
//!
//! For each character of a text, the regex engine advances every position of the pattern that is active there. Its
//! caches save most of that work, but a text can be written so that they do not, and so the cost ignores them. A
//! pattern that begins with `^` is matched from the beginning of the text only. Any other pattern is matched from every
//! character on, so that all of its positions may become active.

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};
use regex_syntax::{Error, ParserBuilder};

/// Parses a pattern, case-insensitively as routes match it.
pub(super) fn read(pattern: &str) -> Result<Hir, Box<Error>> {
    let mut parser = ParserBuilder::new().case_insensitive(true).build();
    parser.parse(pattern).map_err(Box::new)
}

/// Returns an upper bound of the positions that are active at the same time.
pub(super) fn cost(pattern: &Hir) -> u64 {
    let part = PatternPart::of(pattern);
    let is_anchored = pattern.properties().look_set_prefix().contains(Look::Start);
    if is_anchored { part.once } else { part.places }
}

/// Cost and length of a part of a pattern.
#[derive(Clone, Copy)]
struct PatternPart {
    /// Number of positions. The engine matches bytes, so a character counts as many as it may have bytes.
    places: u64,
    /// Maximum number of active positions if the part starts at a single position of the text.
    once: u64,
    /// Minimum length of a match, in characters.
    shortest: u64,
    /// Maximum length of a match, in characters; `None` if it is unlimited.
    longest: Option<u64>,
}

impl PatternPart {
    fn of(pattern: &Hir) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::of_length(0, 1),
            HirKind::Literal(literal) => {
                let characters = String::from_utf8_lossy(&literal.0).chars().count();
                Self {
                    places: literal.0.len() as u64,
                    ..Self::of_length(characters as u64, 1)
                }
            }
            HirKind::Class(class) => Self::of_length(1, class.maximum_len().unwrap_or(1) as u64),
            HirKind::Capture(group) => {
                let inside = Self::of(&group.sub);
                Self {
                    places: inside.places.saturating_add(1),
                    once: inside.once.saturating_add(1),
                    ..inside
                }
            }
            HirKind::Alternation(parts) => {
                let parts = parts.iter().map(Self::of);
                parts.reduce(Self::or).unwrap_or(Self::of_length(0, 1))
            }
            HirKind::Concat(parts) => Self::row(parts),
            HirKind::Repetition(repetition) => Self::repeated(repetition),
        }
    }

    fn of_length(characters: u64, places: u64) -> Self {
        Self {
            places,
            once: places,
            shortest: characters,
            longest: Some(characters),
        }
    }

    /// Returns the number of text positions at which a match may end, less one; `None` if it is unlimited.
    fn slack(&self) -> Option<u64> {
        self.longest.map(|longest| longest - self.shortest)
    }

    fn or(self, other: Self) -> Self {
        // Alternatives are active together, so their costs add up.
        let both = self.longest.zip(other.longest);
        Self {
            places: self.places.saturating_add(other.places),
            once: self.once.saturating_add(other.once),
            shortest: self.shortest.min(other.shortest),
            longest: both.map(|(one, other)| one.max(other)),
        }
    }

    fn row(parts: &[Hir]) -> Self {
        let mut row = Self {
            places: 0,
            ..Self::of_length(0, 0)
        };
        // Parts of fixed length after a prefix of fixed length start at one text position each. Only one of them is
        // active at a time, so only the most expensive one counts.
        let mut alone = 0;
        for part in parts.iter().map(Self::of) {
            match row.slack() {
                Some(0) if part.slack() == Some(0) => alone = part.once.max(alone),
                // The part may start at `slack + 1` text positions. All of its positions are the upper bound.
                Some(slack) => {
                    let begun = part.once.saturating_mul(slack.saturating_add(1));
                    row.once = row.once.saturating_add(begun.min(part.places));
                }
                // The part may start anywhere, so that all of its positions may be active.
                None => row.once = row.once.saturating_add(part.places),
            }
            row.places = row.places.saturating_add(part.places);
            row.shortest = row.shortest.saturating_add(part.shortest);
            let both = row.longest.zip(part.longest);
            row.longest = both.map(|(row, part)| row.saturating_add(part));
        }
        row.once = row.once.saturating_add(alone).min(row.places);
        row
    }

    fn repeated(repetition: &Repetition) -> Self {
        let part = Self::of(&repetition.sub);
        // The engine compiles `x{2,5}` to five copies of `x`, but `x+` and `x*` to one with a loop.
        let copies = repetition.max.unwrap_or(repetition.min).max(1);
        let places = part.places.saturating_mul(copies.into());
        // Copies of a fixed length start one after the other, so only one of them is active at a time. Copies that are
        // empty, or that vary in length, may all be active at the same text position.
        let is_in_step = part.slack() == Some(0) && part.shortest > 0;
        let most = repetition.max.map(u64::from).zip(part.longest);
        Self {
            places,
            once: if is_in_step { part.once } else { places },
            shortest: part.shortest.saturating_mul(repetition.min.into()),
            longest: most.map(|(times, longest)| longest.saturating_mul(times)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost_of(pattern: &str) -> u64 {
        cost(&read(pattern).unwrap())
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
