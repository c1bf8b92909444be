//! The choices of a question, validated.

use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::single_choice::Choice;
use crate::folding::fold;

/// The choices of a question: at least one, with different titles and IDs.
///
/// ```
/// use replyhook::choice::{Choices, ChoicesError};
///
/// assert_eq!(Choices::new(["Today", "Tomorrow"])?.len(), 2);
/// assert_eq!(Choices::new(["Today", "today"]), Err(ChoicesError::EqualTitles { first: 1, second: 2 }));
/// # Ok::<(), ChoicesError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Choices(Vec<Choice>);

/// Error of invalid choices. Numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoicesError {
    /// The list is empty.
    #[error("a question needs at least one choice")]
    None,
    /// There are too many choices.
    #[error("{given} choices; a question has at most {max}", max = Choices::MAX)]
    TooMany {
        /// Number of choices.
        given: usize,
    },
    /// A title is empty.
    #[error("the title of choice {number} is empty")]
    EmptyTitle {
        /// Number of the choice.
        number: usize,
    },
    /// An ID is empty.
    #[error("the id of choice {number} is empty")]
    EmptyId {
        /// Number of the choice.
        number: usize,
    },
    /// Two titles are equal, apart from case, accents and white space. A user who types it could mean either.
    #[error(
        "choices {first} and {second} have the same title; titles must differ in more than case, accents and spaces"
    )]
    EqualTitles {
        /// Number of the first choice.
        first: usize,
        /// Number of the second choice.
        second: usize,
    },
    /// Two IDs are equal, apart from case, accents and white space.
    #[error(
        "choices {first} and {second} have the same id; ids must differ in more than case, accents and spaces"
    )]
    EqualIds {
        /// Number of the first choice.
        first: usize,
        /// Number of the second choice.
        second: usize,
    },
}

impl Choices {
    /// Maximum number of choices.
    // A typed number has at most two digits then, and the question fits into a few messages.
    pub const MAX: usize = 99;

    /// Validates choices, in the order in which the user sees them.
    ///
    /// # Errors
    /// [`ChoicesError`] without choices or with too many, and for an empty or equal title or ID.
    pub fn new(choices: impl IntoIterator<Item = impl Into<Choice>>) -> Result<Self, ChoicesError> {
        let choices: Vec<Choice> = choices.into_iter().map(Into::into).collect();
        if choices.is_empty() {
            return Err(ChoicesError::None);
        }
        if choices.len() > Self::MAX {
            let given = choices.len();
            return Err(ChoicesError::TooMany { given });
        }
        for (number, choice) in (1..).zip(&choices) {
            if is_blank(choice.title()) {
                return Err(ChoicesError::EmptyTitle { number });
            }
            if is_blank(choice.id()) {
                return Err(ChoicesError::EmptyId { number });
            }
        }
        let equal = |part: fn(&Choice) -> &str| {
            let folded: Vec<_> = choices.iter().map(|choice| fold(part(choice))).collect();
            let mut seen = HashSet::new();
            let second = folded.iter().position(|text| !seen.insert(text))?;
            let first = folded.iter().position(|text| *text == folded[second])?;
            Some((first + 1, second + 1))
        };
        if let Some((first, second)) = equal(Choice::title) {
            return Err(ChoicesError::EqualTitles { first, second });
        }
        if let Some((first, second)) = equal(Choice::id) {
            return Err(ChoicesError::EqualIds { first, second });
        }
        Ok(Self(choices))
    }

    /// Returns the choices in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Choice> {
        self.0.iter()
    }

    /// Returns the number of choices.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a question has at least one choice"
    )]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the choice that an answer certainly means: its title, with case, accents, punctuation and emoji ignored,
    /// or its number, counted from 1.
    ///
    /// A text that could mean two choices, or something else, finds none. The numbers were shown, as in a numbered text.
    pub fn find(&self, answer: &str) -> Option<&Choice> {
        let found = super::typed_answer::find(&self.0, answer, true)?;
        self.0.get(found.index)
    }

    /// Returns the choice that an answer certainly means, where the question was shown without numbers.
    #[doc(hidden)]
    pub fn find_without_numbers(&self, answer: &str) -> Option<&Choice> {
        let found = super::typed_answer::find(&self.0, answer, false)?;
        self.0.get(found.index)
    }

    /// Returns the question as one text, with a number before each title.
    #[doc(hidden)]
    pub fn numbered_text(&self, question: &str, hint: Option<&str>) -> String {
        self.numbered_lines(question, hint).join("\n")
    }

    /// Returns the parts of [`numbered_text`](Self::numbered_text): the question, each choice, and the hint. A line break
    /// separates them, and a long text may only be split there.
    #[doc(hidden)]
    pub fn numbered_lines(&self, question: &str, hint: Option<&str>) -> Vec<String> {
        let question = Some(question.trim_end()).filter(|question| !question.is_empty());
        let choices = (1..).zip(&self.0).map(|(number, choice)| {
            let mut line = format!("{number}. {}", choice.title());
            if let Some(description) = choice.description_text() {
                let _ = write!(line, " – {description}");
            }
            line
        });
        let hint = hint.filter(|hint| !hint.trim().is_empty());
        let question = question.map(str::to_owned).into_iter();
        question
            .chain(choices)
            .chain(hint.map(str::to_owned))
            .collect()
    }
}

fn is_blank(text: &str) -> bool {
    // Folded, a text of invisible marks alone is empty.
    fold(text).is_empty()
}

impl<'a> IntoIterator for &'a Choices {
    type Item = &'a Choice;
    type IntoIter = std::slice::Iter<'a, Choice>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for Choices {
    type Item = Choice;
    type IntoIter = std::vec::IntoIter<Choice>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Validates the choices of a stored question.
impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let choices = Vec::<Choice>::deserialize(deserializer)?;
        Self::new(choices).map_err(serde::de::Error::custom)
    }
}

/// Hides the texts.
impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choices")
            .field("len", &self.0.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_reject_empty_and_equal() {
        let none: [&str; 0] = [];
        assert_eq!(Choices::new(none), Err(ChoicesError::None));
        let many = (0..100).map(|number| format!("choice {number}"));
        assert_eq!(
            Choices::new(many),
            Err(ChoicesError::TooMany { given: 100 })
        );
        for blank in ["", "  ", "\u{200b}"] {
            assert_eq!(
                Choices::new(["Yes", blank]),
                Err(ChoicesError::EmptyTitle { number: 2 })
            );
            assert_eq!(
                Choices::new([Choice::new(blank, "Yes")]),
                Err(ChoicesError::EmptyId { number: 1 })
            );
        }
        for equal in [["Sí", "si"], ["A  b", "a b"], ["STRASSE", "straße"]] {
            let error = ChoicesError::EqualTitles {
                first: 1,
                second: 2,
            };
            assert_eq!(Choices::new(equal), Err(error), "{equal:?}");
        }
        let ids = [
            Choice::new("a", "One"),
            Choice::new("b", "Two"),
            Choice::new("A", "Three"),
        ];
        let error = ChoicesError::EqualIds {
            first: 1,
            second: 3,
        };
        assert_eq!(Choices::new(ids), Err(error));
        assert!(Choices::new(["C", "C!", "C++"]).is_ok());
    }

    #[test]
    fn numbered_text_has_whole_titles_and_hint() {
        let choices = Choices::new([
            Choice::new("today", " Today ").description("before 6 pm"),
            Choice::from("Another day"),
        ]);
        let choices = choices.unwrap();
        assert_eq!(
            choices.numbered_text("When?\n", Some("Reply with the number.")),
            "When?\n1. Today – before 6 pm\n2. Another day\nReply with the number."
        );
        assert_eq!(
            choices.numbered_text("", None),
            "1. Today – before 6 pm\n2. Another day"
        );
    }
}
