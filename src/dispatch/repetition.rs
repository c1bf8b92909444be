//! Whether the texts of a conversation say the same again and again, which is how two bots are known that answer each other.
//!
//! Texts repeat where each says what the one before said or, with a bot that takes turns between a few answers, what the one
//! two or three before said. One says what another said if it is equal or, as an answer that quotes what was heard, contains
//! it. Of texts there are only hashes and lengths.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Answers that a bot may take turns between.
const MOST_ANSWERS: usize = 3;
/// How often each of them is said in a row.
const TIMES: usize = 3;
/// A shorter text is in another by chance.
const LEAST_CONTAINED: usize = 16;
/// Bytes of a text that are looked at. A message has up to 1600 characters.
const MOST_BYTES: usize = 4096;

/// What texts are hashed with: another one in each process.
#[derive(Clone, Copy)]
pub(super) struct HashBase(u64);

/// A text that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    hash: u64,
    bytes: usize,
}

/// The texts that came last.
#[derive(Default)]
pub(super) struct Repetition {
    /// The youngest first.
    heard: VecDeque<Heard>,
    /// How many texts in a row have said what the one before said, the one two before, and so on.
    rows: [usize; MOST_ANSWERS],
}

impl HashBase {
    pub(super) fn random() -> Self {
        Self(RandomState::new().hash_one(MOST_BYTES) | 1)
    }

    fn hash(self, text: &[u8]) -> u64 {
        let more =
            |hash: u64, byte: &u8| hash.wrapping_mul(self.0).wrapping_add(1 + u64::from(*byte));
        text.iter().fold(0, more)
    }

    /// Whether a text is an earlier one, or contains it.
    fn says(self, text: &[u8], earlier: Heard) -> bool {
        let bytes = earlier.bytes;
        if text.len() < bytes || (text.len() > bytes && bytes < LEAST_CONTAINED) {
            return false;
        }
        // A hash that moves over the text.
        let (first, rest) = text.split_at(bytes);
        let mut hash = self.hash(first);
        if hash == earlier.hash {
            return true;
        }
        let weight = (0..bytes).fold(1_u64, |weight, _| weight.wrapping_mul(self.0));
        rest.iter().zip(text).any(|(comes, goes)| {
            let goes = weight.wrapping_mul(1 + u64::from(*goes));
            hash = hash
                .wrapping_mul(self.0)
                .wrapping_add(1 + u64::from(*comes))
                .wrapping_sub(goes);
            hash == earlier.hash
        })
    }
}

impl Repetition {
    /// Takes in what came, and says whether texts repeat now. What is no text ends a row.
    pub(super) fn hears(&mut self, base: HashBase, text: Option<&str>) -> bool {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            *self = Self::default();
            return false;
        };
        let text = &text.as_bytes()[..text.len().min(MOST_BYTES)];
        for (row, earlier) in self.rows.iter_mut().zip(&self.heard) {
            *row = if base.says(text, *earlier) {
                *row + 1
            } else {
                0
            };
        }
        self.heard.truncate(MOST_ANSWERS - 1);
        self.heard.push_front(Heard {
            hash: base.hash(text),
            bytes: text.len(),
        });
        // The first of each answer repeats nothing.
        let mut rows = (1..).zip(self.rows);
        rows.any(|(answers, row)| row >= answers * (TIMES - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first of the texts with which they repeat.
    fn found(texts: impl IntoIterator<Item = String>) -> Option<usize> {
        let base = HashBase::random();
        let mut repetition = Repetition::default();
        texts
            .into_iter()
            .position(|text| repetition.hears(base, Some(&text)))
    }

    fn owned<const N: usize>(texts: [&str; N]) -> [String; N] {
        texts.map(str::to_owned)
    }

    proptest! {
        #[test]
        fn a_text_contains_its_parts_and_no_others(
            before in "\\PC{0,40}", part in "\\PC{4,40}", after in "\\PC{0,40}", other in "\\PC{4,40}",
        ) {
            let base = HashBase::random();
            let text = format!("{before}{part}{after}");
            for part in [part, other] {
                let heard = Heard { hash: base.hash(part.as_bytes()), bytes: part.len() };
                let contains = text == part || (part.len() >= LEAST_CONTAINED && text.contains(&part));
                prop_assert_eq!(base.says(text.as_bytes(), heard), contains);
            }
        }

        #[test]
        fn as_many_answers_as_there_may_be_repeat_once_each_is_said_thrice(answers in 1..=MOST_ANSWERS) {
            let texts = (0..20).map(|number| format!("answer {}", number % answers));
            prop_assert_eq!(found(texts), Some(answers * TIMES - 1));
        }

        #[test]
        fn texts_that_are_new_each_time_never_repeat(texts in prop::collection::hash_set("[a-z]{9}", 0..50)) {
            prop_assert_eq!(found(texts), None);
        }
    }

    #[test]
    fn texts_that_quote_each_other_repeat_and_short_ones_that_happen_to_do_not() {
        let mut text = "Hello, what can I do?".to_owned();
        let quotes = (0..5).map(|_| {
            text = format!("You said: {text} I cannot help with that.");
            text.clone()
        });
        assert_eq!(found(quotes), Some(2));
        assert_eq!(found(owned(["1", "12", "123", "1234", "12345"])), None);
        // With something else between them.
        assert_eq!(found(owned(["hi", "hi", "ho", "hi", "hi", "hu"])), None);
    }

    #[test]
    fn what_is_no_text_ends_a_row() {
        let base = HashBase::random();
        let mut repetition = Repetition::default();
        for text in [
            Some("hi"),
            Some("hi"),
            None,
            Some("hi"),
            Some("hi"),
            Some(""),
        ] {
            assert!(!repetition.hears(base, text));
        }
    }

    #[test]
    fn what_is_kept_and_looked_at_is_bounded() {
        let base = HashBase::random();
        let mut repetition = Repetition::default();
        let long = "é".repeat(100_000);
        for number in 0..10 {
            assert_eq!(repetition.hears(base, Some(&long)), number >= 2);
            assert!(repetition.heard.len() <= MOST_ANSWERS);
        }
    }
}
