//! One choice of a question.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One choice of a question: an ID for the program, a title for the user, and possibly a description.
///
/// A text is a choice whose ID is its title.
///
/// ```
/// use replyhook::choice::Choice;
///
/// let today = Choice::new("today", "Today").description("before 6 pm");
/// assert_eq!((today.id(), today.title()), ("today", "Today"));
/// assert_eq!(Choice::from("Tomorrow").id(), "Tomorrow");
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    id: String,
    title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl Choice {
    /// Creates a choice. White space around the ID and the title is dropped.
    pub fn new(id: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            id: id.into().trim().to_owned(),
            title: title.into().trim().to_owned(),
            description: None,
        }
    }

    /// Sets a description, which a list and a numbered text show and buttons do not.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        let description = description.into().trim().to_owned();
        self.description = Some(description).filter(|text| !text.is_empty());
        self
    }

    /// Returns the ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the title.
    pub fn title(&self) -> &str {
        &self.title
    }

    #[doc(hidden)]
    pub fn description_text(&self) -> Option<&str> {
        self.description.as_deref()
    }
}

impl From<&str> for Choice {
    fn from(title: &str) -> Self {
        Self::new(title, title)
    }
}

impl From<String> for Choice {
    fn from(title: String) -> Self {
        Self::new(title.as_str(), title.as_str())
    }
}

impl From<&Self> for Choice {
    fn from(choice: &Self) -> Self {
        choice.clone()
    }
}

/// Hides the texts.
impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("title_len", &self.title.len())
            .finish_non_exhaustive()
    }
}
