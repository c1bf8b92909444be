//! Detection of repeated texts in a conversation, a sign of two bots that reply to each other.
//!
//! Texts repeat if each matches the one before. For a bot that alternates between a few replies, each matches the one
//! two or three before. A text matches an earlier one if it equals or, as a reply that quotes a message does, contains
//! it. Only hashes and lengths of texts are stored.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Maximum number of different texts that a bot alternates between.
const MAX_ANSWERS: usize = 3;
/// Number of times that each of them is sent before the texts repeat.
const TIMES: usize = 3;
/// Minimum length in bytes for a text to match as a part of another. A shorter one is often contained by chance.
const MIN_CONTAINED: usize = 16;
/// Maximum number of bytes of a text that are compared. A message has up to 1600 characters.
const MAX_BYTES: usize = 4096;

/// Base of the polynomial hash, random for each process.
#[derive(Clone, Copy)]
pub(super) struct HashBase(u64);

/// Hash and length of an inbound text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    hash: u64,
    bytes: usize,
}

/// Latest inbound texts of a conversation.
#[derive(Default)]
pub(super) struct Repetition {
    /// Newest first.
    heard: VecDeque<Heard>,
    /// Number of consecutive texts that matched the one before, the one two before, and so on.
    rows: [usize; MAX_ANSWERS],
}

impl HashBase {
    pub(super) fn random() -> Self {
        // Odd: an even base loses bits with each multiplication modulo 2^64.
        Self(RandomState::new().hash_one(MAX_BYTES) | 1)
    }

    fn hash(self, text: &[u8]) -> u64 {
        // `1 +`, so that leading zero bytes change the hash.
        let more =
            |hash: u64, byte: &u8| hash.wrapping_mul(self.0).wrapping_add(1 + u64::from(*byte));
        text.iter().fold(0, more)
    }

    /// Returns whether a text equals or contains an earlier one.
    fn says(self, text: &[u8], earlier: Heard) -> bool {
        let bytes = earlier.bytes;
        if text.len() < bytes || (text.len() > bytes && bytes < MIN_CONTAINED) {
            return false;
        }
        // A rolling hash (Rabin-Karp): comparing all positions costs one pass over the text. Equal hashes count as
        // equal texts, since the earlier text is not stored.
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
    /// Adds an inbound text and returns whether texts now repeat. A message without text resets the detection.
    pub(super) fn observe(&mut self, base: HashBase, text: Option<&str>) -> bool {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            *self = Self::default();
            return false;
        };
        // Bytes, so the cut may divide a character.
        let text = &text.as_bytes()[..text.len().min(MAX_BYTES)];
        for (row, earlier) in self.rows.iter_mut().zip(&self.heard) {
            *row = if base.says(text, *earlier) {
                *row + 1
            } else {
                0
            };
        }
        self.heard.truncate(MAX_ANSWERS - 1);
        self.heard.push_front(Heard {
            hash: base.hash(text),
            bytes: text.len(),
        });
        // The first of each of `answers` texts matches nothing, so it does not count.
        let mut rows = (1..).zip(self.rows);
        rows.any(|(answers, row)| row >= answers * (TIMES - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Index of the text with which the texts begin to repeat.
    fn found(texts: impl IntoIterator<Item = String>) -> Option<usize> {
        let base = HashBase::random();
        let mut repetition = Repetition::default();
        texts
            .into_iter()
            .position(|text| repetition.observe(base, Some(&text)))
    }

    fn owned<const N: usize>(texts: [&str; N]) -> [String; N] {
        texts.map(str::to_owned)
    }

    proptest! {
        #[test]
        fn text_fingerprint_matches_only_contained_text(
            before in "\\PC{0,40}", part in "\\PC{4,40}", after in "\\PC{0,40}", other in "\\PC{4,40}",
        ) {
            let base = HashBase::random();
            let text = format!("{before}{part}{after}");
            for part in [part, other] {
                let heard = Heard { hash: base.hash(part.as_bytes()), bytes: part.len() };
                let contains = text == part || (part.len() >= MIN_CONTAINED && text.contains(&part));
                prop_assert_eq!(base.says(text.as_bytes(), heard), contains);
            }
        }

        #[test]
        fn cycling_texts_repeat_after_three_rounds(answers in 1..=MAX_ANSWERS) {
            let texts = (0..20).map(|number| format!("answer {}", number % answers));
            prop_assert_eq!(found(texts), Some(answers * TIMES - 1));
        }

        #[test]
        fn unique_texts_never_repeat(texts in prop::collection::hash_set("[a-z]{9}", 0..50)) {
            prop_assert_eq!(found(texts), None);
        }
    }

    // Two echo bots quote each other's previous text; short texts contain each other by chance.
    #[test]
    fn quoted_text_repeats_unless_short() {
        let mut text = "Hello, what can I do?".to_owned();
        let quotes = (0..5).map(|_| {
            text = format!("You said: {text} I cannot help with that.");
            text.clone()
        });
        assert_eq!(found(quotes), Some(2));
        assert_eq!(found(owned(["1", "12", "123", "1234", "12345"])), None);
        // Another text in between ends the row.
        assert_eq!(found(owned(["hi", "hi", "ho", "hi", "hi", "hu"])), None);
    }

    #[test]
    fn message_without_text_resets_repetition() {
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
            assert!(!repetition.observe(base, text));
        }
    }

    #[test]
    fn repetition_memory_is_bounded() {
        let base = HashBase::random();
        let mut repetition = Repetition::default();
        let long = "é".repeat(100_000);
        for number in 0..10 {
            assert_eq!(repetition.observe(base, Some(&long)), number >= 2);
            assert!(repetition.heard.len() <= MAX_ANSWERS);
        }
    }
}
