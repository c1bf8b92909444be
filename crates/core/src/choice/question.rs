//! The open question of a conversation.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::choice_form::ChoiceForm;
use super::choices::Choices;
use super::chosen::{ChoiceVia, Chosen};
use super::question_id::QuestionId;
use super::tap_payload::TapPayload;
use super::typed_answer::{self, TypedAnswer};
use crate::address::Channel;

/// Question that waits for its answer, as the store keeps it.
// The field names are part of the stored data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuestion {
    /// Identity of the question.
    pub id: QuestionId,
    /// The bot's key for the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The choices.
    pub choices: Choices,
    /// Length of the question's text in UTF-16 units, on which its form depends.
    #[serde(default)]
    pub text_units: usize,
    /// Label of the button that opens a list, on which its form depends; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// True if it was sent as a numbered text although its channel has another form for it, after a failure.
    // Not in the stored data, which has the question as it was asked: it is known later, and has a column of its own.
    #[serde(skip)]
    pub has_numbers: bool,
}

impl OpenQuestion {
    /// Returns the choice that an answer typed on a channel certainly means.
    pub fn typed(&self, answer: &str, channel: &Channel) -> Option<Chosen> {
        let text = "?".repeat(self.text_units);
        let form = ChoiceForm::of(channel, &text, &self.choices, Some(&self.label));
        let has_numbers = self.has_numbers || form == ChoiceForm::Text;
        let choices: Vec<_> = self.choices.iter().cloned().collect();
        let TypedAnswer { index, is_number } = typed_answer::find(&choices, answer, has_numbers)?;
        let choice = choices.get(index)?;
        let via = if is_number {
            ChoiceVia::Number
        } else {
            ChoiceVia::Text
        };
        let key = self.key.clone();
        Some(Chosen::new(choice.id(), choice.title(), via, key, true))
    }

    /// Returns the choice of a tap on this question, with the title as it was asked.
    pub fn tapped(&self, tap: &TapPayload) -> Option<Chosen> {
        let mut choices = self.choices.iter();
        let choice = choices.find(|choice| self.id == tap.question && choice.id() == tap.id)?;
        let key = self.key.clone();
        Some(Chosen::new(choice.id(), choice.title(), tap.via, key, true))
    }
}

/// Hides the texts.
impl fmt::Debug for OpenQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenQuestion")
            .field("id", &self.id)
            .field("choices", &self.choices)
            .finish_non_exhaustive()
    }
}
