//! What matching a pattern can cost: how much of it can be under way at once.
//!
//! Of each character of a text the engine looks at every place of a pattern that may be under way there. It saves most of that
//! by what it has seen before, but none that could be relied on. What begins with `^` is under way once, anything else from each
//! character on anew.

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};
use regex_syntax::{Error, ParserBuilder};

/// Reads a pattern as routes have it: without case.
pub(super) fn read(pattern: &str) -> Result<Hir, Box<Error>> {
    let mut parser = ParserBuilder::new().case_insensitive(true).build();
    parser.parse(pattern).map_err(Box::new)
}

/// How many places are under way at once, at most.
pub(super) fn weight(pattern: &Hir) -> u64 {
    let part = Part::of(pattern);
    let is_anchored = pattern.properties().look_set_prefix().contains(Look::Start);
    if is_anchored { part.once } else { part.places }
}

/// A part of a pattern.
#[derive(Clone, Copy)]
struct Part {
    /// A character is as many as it may have bytes.
    places: u64,
    /// How many places are under way at once where it begins in one place of the text alone.
    once: u64,
    /// Of what it matches, in characters.
    shortest: u64,
    /// Without one it has no end.
    longest: Option<u64>,
}

impl Part {
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

    /// In how many more places of the text than one it may end.
    fn slack(&self) -> Option<u64> {
        self.longest.map(|longest| longest - self.shortest)
    }

    fn or(self, other: Self) -> Self {
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
        // Of what has its one place in the text only one part is under way at a time.
        let mut alone = 0;
        for part in parts.iter().map(Self::of) {
            match row.slack() {
                Some(0) if part.slack() == Some(0) => alone = part.once.max(alone),
                Some(slack) => {
                    let begun = part.once.saturating_mul(slack.saturating_add(1));
                    row.once = row.once.saturating_add(begun.min(part.places));
                }
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
        let copies = repetition.max.unwrap_or(repetition.min).max(1);
        let places = part.places.saturating_mul(copies.into());
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

    fn weight_of(pattern: &str) -> u64 {
        weight(&read(pattern).unwrap())
    }

    #[test]
    fn what_people_write_is_light_and_what_repeats_repetitions_is_not() {
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
            assert!(
                weight_of(pattern) < 150,
                "{pattern}: {}",
                weight_of(pattern)
            );
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
            assert!(
                weight_of(pattern) > 400,
                "{pattern}: {}",
                weight_of(pattern)
            );
        }
    }
}
