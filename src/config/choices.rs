//! The settings `reply.choices_*`.

use std::time::Duration;

use super::reader::SettingsReader;
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
