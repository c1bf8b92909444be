//! The answer to a question with choices.

use std::fmt;

/// Choice that a user has taken.
///
/// ```
/// use replyhook::choice::{ChoiceVia, Chosen};
/// use replyhook::route::{Router, choice};
///
/// async fn booked(chosen: Chosen) -> String {
///     format!("{} it is.", chosen.title)
/// }
///
/// let bot = Router::new().on(choice("today"), "Before 6 pm.").on(choice(["tomorrow", "other"]), booked);
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chosen {
    /// ID of the choice. A program must not trust it more than any text of the user.
    pub id: String,
    /// Title of the choice.
    pub title: String,
    /// The way in which the user has taken it.
    pub via: ChoiceVia,
    /// Key of the question, if it has one.
    pub key: Option<String>,
    /// False if the question is over: it was answered, another one was asked since, or its time has passed. Only a tap
    /// can answer such a question.
    pub current: bool,
}

/// Way in which a user has taken a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChoiceVia {
    /// Tap on a button.
    Button,
    /// Tap on an item of a list.
    List,
    /// Tap on a chip.
    Chip,
    /// Typed number.
    Number,
    /// Typed title.
    Text,
}

impl ChoiceVia {
    /// Returns the name: `button`, `list`, `chip`, `number` or `text`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Button => "button",
            Self::List => "list",
            Self::Chip => "chip",
            Self::Number => "number",
            Self::Text => "text",
        }
    }
}

impl Chosen {
    #[doc(hidden)]
    pub fn new(
        id: impl Into<String>,
        title: impl Into<String>,
        via: ChoiceVia,
        key: Option<String>,
        current: bool,
    ) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            via,
            key,
            current,
        }
    }
}

/// Shows the way and hides the texts.
impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen")
            .field("via", &self.via)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}
