//! Choices: a question with buttons, a list, chips or numbers, whatever the channel has, and a typed answer.
//!
//! [`ReplyMessage::choices`](crate::reply::ReplyMessage::choices) asks, and
//! [`InboundMessage::choice`](crate::message::InboundMessage::choice) returns what the user has chosen. The user may tap,
//! or type the title or the number. A text that is not certainly one of the choices is an ordinary text.
//!
//! ```
//! use replyhook::choice::{Choice, Choices};
//!
//! let choices = Choices::new([Choice::new("today", "Today").description("before 6 pm"), "Another day".into()])?;
//! assert_eq!(choices.find("today!").map(Choice::id), Some("today"));
//! assert_eq!(choices.find("2").map(Choice::id), Some("Another day"));
//! assert_eq!(choices.find("not today"), None);
//! # Ok::<(), replyhook::choice::ChoicesError>(())
//! ```

mod answer_number;
mod answer_phrases;
mod answer_words;
mod choice_form;
mod choices;
mod chosen;
mod question;
mod question_id;
mod single_choice;
mod tap_payload;
mod typed_answer;

pub use choice_form::ChoiceForm;
pub use choices::{Choices, ChoicesError};
pub use chosen::{ChoiceVia, Chosen};
#[doc(hidden)]
pub use question::OpenQuestion;
#[doc(hidden)]
pub use question_id::QuestionId;
pub use single_choice::Choice;

pub use crate::sms_keywords::sms_keyword;
#[doc(hidden)]
pub use tap_payload::TapPayload;
#[doc(hidden)]
pub use typed_answer::{answer_texts, title_keyword};
