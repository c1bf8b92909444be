//! The settings `reply.choices_*`.

use std::time::Duration;

use super::layers::Layers;
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sources::Sources;
use crate::choice::ChoiceForm;

/// Texts and lifetime of questions with choices; part of [`ReplySettings`](super::ReplySettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChoicesSettings {
    /// Label of the button that opens a list; empty for no lists.
    pub button: String,
    /// Last line of a question that is sent as a numbered text; empty for none.
    pub hint: String,
    /// Time after which an unanswered question is over.
    pub ttl: Duration,
}

impl ChoicesSettings {
    /// Reads only `reply.choices_*`; other settings may be missing.
    ///
    /// ```
    /// use replyhook::config::{ChoicesSettings, Sources};
    ///
    /// let sources = Sources::default().with_env([("REPLYHOOK__REPLY__CHOICES_TTL", "2h")]);
    /// let choices = ChoicesSettings::load(&sources)?;
    /// assert_eq!(choices.ttl.as_secs(), 2 * 3600);
    /// # Ok::<(), replyhook::config::Problems>(())
    /// ```
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let choices = read(&mut reader);
        let (problems, _) = reader.finish();
        choices.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<ChoicesSettings> {
    const BUTTON: &str = "reply.choices_button";
    let button = reader.text(BUTTON).trim().to_owned();
    if !ChoiceForm::fits_label(&button) {
        let max = ChoiceForm::MAX_LABEL_UNITS;
        let text = format!("has over {max} characters, which WhatsApp does not show");
        reader.problem(BUTTON, text);
    }
    Some(ChoicesSettings {
        button,
        hint: reader.text("reply.choices_hint").trim().to_owned(),
        ttl: reader.time("reply.choices_ttl")?,
    })
}
