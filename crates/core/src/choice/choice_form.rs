//! The form in which a channel shows the choices of a question.

use super::choices::Choices;
use super::single_choice::Choice;
use crate::address::Channel;
use crate::template::limits;

/// Form of a question with choices. The channel, the number of choices and the lengths of the texts decide it.
///
/// ```
/// use replyhook::Channel;
/// use replyhook::choice::{ChoiceForm, Choices};
///
/// let three = Choices::new(["Today", "Tomorrow", "Another day"])?;
/// let form = |channel, choices| ChoiceForm::of(channel, "When?", choices, Some("Days"));
/// assert_eq!(form(&Channel::WhatsApp, &three), ChoiceForm::Buttons);
/// assert_eq!(form(&Channel::Sms, &three), ChoiceForm::Text);
/// let four = Choices::new(["Monday", "Tuesday", "Wednesday", "Thursday"])?;
/// assert_eq!(form(&Channel::WhatsApp, &four), ChoiceForm::List);
/// # Ok::<(), replyhook::choice::ChoicesError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChoiceForm {
    /// Quick-reply buttons (WhatsApp, Messenger).
    Buttons,
    /// List behind a button (WhatsApp).
    List,
    /// Suggestions below a text (RCS).
    Chips,
    /// Text with a number before each title, on every channel.
    Text,
}

// Limits in UTF-16 units, the strictest reading of "characters". Source: the pages of Twilio's content types; where
// they contradict each other, the lower value.

/// Maximum length of the question of buttons and of a list.
const MAX_QUESTION: usize = limits::MAX_BODY;
/// Maximum length of the question of a card on RCS.
const MAX_RCS_QUESTION: usize = limits::MAX_TEXT;
/// Maximum length of the title of a button or chip.
const MAX_BUTTON_TITLE: usize = limits::MAX_BUTTON_TITLE;
/// Maximum length of the title of a list's item.
const MAX_ITEM_TITLE: usize = limits::MAX_ROW_TITLE;
/// Maximum length of the description of a list's item.
const MAX_DESCRIPTION: usize = limits::MAX_ROW_DESCRIPTION;
/// Maximum length of the label of a list's button. Twilio has no limit; this is Meta's.
const MAX_LABEL: usize = limits::MAX_LIST_BUTTON;
/// Maximum number of buttons on WhatsApp without an approved template.
const MAX_WHATSAPP_BUTTONS: usize = limits::MAX_SESSION_BUTTONS;
/// Maximum number of buttons on Messenger.
const MAX_MESSENGER_BUTTONS: usize = limits::MAX_BUTTONS;
/// Maximum number of items of a list.
const MAX_ITEMS: usize = limits::MAX_ROWS;
/// Maximum number of chips.
const MAX_CHIPS: usize = limits::MAX_CHIPS;

impl ChoiceForm {
    /// Maximum length of the label of a list's button in UTF-16 units.
    #[doc(hidden)]
    pub const MAX_LABEL_UNITS: usize = MAX_LABEL;

    /// Returns whether a label is short enough for the button of a list.
    #[doc(hidden)]
    pub fn fits_label(label: &str) -> bool {
        units(label) <= MAX_LABEL
    }

    /// Returns the form for a question on a channel. `label` is that of the button that opens a list.
    ///
    /// No title is ever cut: a form that cannot show a text whole is not chosen. The numbered text can show any.
    pub fn of(channel: &Channel, question: &str, choices: &Choices, label: Option<&str>) -> Self {
        let fits = |limits: &Limits| limits.fit(question, choices);
        match channel {
            Channel::WhatsApp if fits(&WHATSAPP_BUTTONS) => Self::Buttons,
            Channel::WhatsApp if has_list_label(label) && fits(&LIST) => Self::List,
            Channel::Messenger if fits(&MESSENGER_BUTTONS) => Self::Buttons,
            Channel::Rcs if fits(&CHIPS) => Self::Chips,
            _ => Self::Text,
        }
    }
}

struct Limits {
    question: usize,
    number: usize,
    title: usize,
    description: Option<usize>,
}

const WHATSAPP_BUTTONS: Limits = Limits {
    question: MAX_QUESTION,
    number: MAX_WHATSAPP_BUTTONS,
    title: MAX_BUTTON_TITLE,
    description: None,
};
const MESSENGER_BUTTONS: Limits = Limits {
    number: MAX_MESSENGER_BUTTONS,
    ..WHATSAPP_BUTTONS
};
const LIST: Limits = Limits {
    question: MAX_QUESTION,
    number: MAX_ITEMS,
    title: MAX_ITEM_TITLE,
    description: Some(MAX_DESCRIPTION),
};
const CHIPS: Limits = Limits {
    question: MAX_RCS_QUESTION,
    number: MAX_CHIPS,
    title: MAX_BUTTON_TITLE,
    description: None,
};

impl Limits {
    fn fit(&self, question: &str, choices: &Choices) -> bool {
        // Each of these forms needs a text above the choices.
        !question.trim().is_empty()
            && units(question) <= self.question
            && choices.len() <= self.number
            && choices.iter().all(|choice| self.fit_choice(choice))
    }

    fn fit_choice(&self, choice: &Choice) -> bool {
        let title = choice.title();
        // A line break is not possible in a button.
        let is_line = |text: &str| !text.contains(char::is_control);
        let description = choice.description_text().unwrap_or_default();
        units(title) <= self.title
            && is_line(title)
            // Without a place for it, a description is not shown.
            && self.description.is_none_or(|max| units(description) <= max && is_line(description))
    }
}

fn has_list_label(label: Option<&str>) -> bool {
    label.is_some_and(|label| !label.trim().is_empty() && ChoiceForm::fits_label(label))
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize, length: usize) -> Choices {
        let titles = (0..number).map(|number| format!("{number:02}{}", "x".repeat(length - 2)));
        Choices::new(titles).unwrap()
    }

    #[test]
    fn form_steps_down_at_each_limit() {
        use ChoiceForm::{Buttons, Chips, List, Text};
        let (whatsapp, rcs) = (&Channel::WhatsApp, &Channel::Rcs);
        for (channel, number, length, expected) in [
            (whatsapp, 1, 20, Buttons),
            (whatsapp, 3, 20, Buttons),
            (whatsapp, 3, 21, List),
            (whatsapp, 4, 2, List),
            (whatsapp, 10, 24, List),
            (whatsapp, 3, 25, Text),
            (whatsapp, 11, 2, Text),
            (rcs, 1, 20, Chips),
            (rcs, 11, 20, Chips),
            (rcs, 12, 2, Text),
            (rcs, 2, 21, Text),
            (&Channel::Messenger, 10, 20, Buttons),
            (&Channel::Messenger, 11, 20, Text),
            (&Channel::Messenger, 2, 21, Text),
            (&Channel::Sms, 2, 2, Text),
            (&Channel::Other("viber".into()), 2, 2, Text),
        ] {
            let form = ChoiceForm::of(channel, "When?", &numbered(number, length), Some("Days"));
            assert_eq!(form, expected, "{channel:?} {number} of {length}");
        }
    }

    #[test]
    fn form_depends_on_question_label_and_description() {
        let form = |question: &str, choices: &Choices, label| {
            ChoiceForm::of(&Channel::WhatsApp, question, choices, label)
        };
        let (three, four) = (numbered(3, 5), numbered(4, 5));
        assert_eq!(form(&"x".repeat(1024), &three, None), ChoiceForm::Buttons);
        assert_eq!(form(&"x".repeat(1025), &three, None), ChoiceForm::Text);
        assert_eq!(form(" ", &three, None), ChoiceForm::Text);
        for label in [None, Some(" "), Some("a label of 21 letters")] {
            assert_eq!(form("When?", &four, label), ChoiceForm::Text);
        }
        // An emoji counts as two characters.
        let emoji = Choices::new(["🍕".repeat(11)]).unwrap();
        assert_eq!(form("What?", &emoji, Some("Menu")), ChoiceForm::List);
        let line_break = Choices::new(["one\ntwo"]).unwrap();
        assert_eq!(form("What?", &line_break, Some("Menu")), ChoiceForm::Text);
        let described = |length: usize| {
            let first = Choice::new("a", "A").description("x".repeat(length));
            Choices::new([first, "B".into(), "C".into(), "D".into()]).unwrap()
        };
        assert_eq!(form("?", &described(72), Some("Menu")), ChoiceForm::List);
        assert_eq!(form("?", &described(73), Some("Menu")), ChoiceForm::Text);
    }
}
