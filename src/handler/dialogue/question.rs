//! One question of a form: how it is asked, and how its answer is read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::handler::HandlerError;
use crate::handler::folding::{bare, fold, normal};
use crate::message::InboundMessage;
use crate::reply::{Reply, ReplyMessage};

/// What a form has been told so far, by field.
///
/// ```
/// use replyhook::Reply;
/// use replyhook::dialogue::{Answers, Form, Question};
///
/// let name = |answers: &Answers| answers.of::<String>("name").unwrap_or_default();
/// let form = Form::new("visit")
///     .ask("name", "Who are you?")
///     .ask("guests", Question::with(move |answers| {
///         Reply::text(format!("How many guests, {}?", name(answers)))
///     }).parse::<u8>())
///     .ask("names", Question::new("Their names?").only_if(|answers| answers.of::<u8>("guests") > Some(0)));
/// # drop(form);
/// ```
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(Map<String, Value>);

impl Answers {
    /// One of them, if it was given and is of that type.
    pub fn of<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        serde_json::from_value(self.0.get(field)?.clone()).ok()
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_value(Value::Object(self.0.clone())).ok()
    }

    pub(super) fn insert(&mut self, field: &str, value: Value) {
        self.0.insert(field.to_owned(), value);
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    #[cfg(feature = "rules")]
    pub(crate) fn values(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Fields only.
impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One question of a form.
///
/// ```
/// use replyhook::dialogue::Question;
///
/// let guests = Question::new("For how many?").parse::<u8>().or("A number, please.");
/// let size = Question::new("Small or large?").choice(["small", "large"]);
/// let even = Question::new("An even number?").parse_with(|message| {
///     let number: u32 = message.body.trim().parse().map_err(|_| None)?;
///     if number % 2 == 0 { Ok(number) } else { Err(Some(format!("{number} is odd."))) }
/// });
/// # drop((guests, size, even));
/// ```
#[derive(Clone)]
pub struct Question {
    asked: Asked,
    reads: Reads,
    hint: Option<Asked>,
    only_if: Option<Condition>,
}

/// What is said, by what has been answered and the message that came.
type Asked = Arc<dyn Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError> + Send + Sync>;
type Reads = Arc<dyn Fn(&InboundMessage) -> Result<Value, Option<String>> + Send + Sync>;
type Condition = Arc<dyn Fn(&Answers, &InboundMessage) -> Result<bool, HandlerError> + Send + Sync>;

impl Question {
    /// A question whose answer is any text.
    pub fn new(text: impl Into<ReplyMessage>) -> Self {
        let reply = Reply::from(text.into());
        Self::with(move |_| reply.clone())
    }

    /// A question that goes by what has been answered before.
    pub fn with(asked: impl Fn(&Answers) -> Reply + Send + Sync + 'static) -> Self {
        Self::try_with(move |answers, _| Ok(asked(answers)))
    }

    pub(crate) fn try_with(
        asked: impl Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            asked: Arc::new(asked),
            reads: Arc::new(|message| Ok(Value::from(text(message)?))),
            hint: None,
            only_if: None,
        }
    }

    /// Its answer is a text that `T` can be read from, such as a number.
    #[must_use]
    pub fn parse<T: FromStr + Serialize>(self) -> Self {
        self.parse_with(|message| {
            let text = text(message)?;
            // As it was written, if that can be read: a name keeps its letters.
            let read = text.parse::<T>().or_else(|_| normal(text).parse());
            read.map_err(|_| None)
        })
    }

    /// Its answer is what your function makes of a message. It may return a hint of its own, which is said instead of the
    /// question's.
    #[must_use]
    pub fn parse_with<T: Serialize>(
        mut self,
        parse: impl Fn(&InboundMessage) -> Result<T, Option<String>> + Send + Sync + 'static,
    ) -> Self {
        self.reads =
            Arc::new(move |message| serde_json::to_value(parse(message)?).map_err(|_| None));
        self
    }

    /// Its answer is yes or no, in one of a few languages: `true` or `false`.
    #[must_use]
    pub fn yes_or_no(self) -> Self {
        const YES: [&str; 12] = [
            "yes", "y", "yeah", "yep", "sure", "ok", "ja", "si", "oui", "sim", "да", "👍",
        ];
        const NO: [&str; 8] = ["no", "n", "nope", "nein", "non", "nao", "нет", "👎"];
        self.parse_with(|message| {
            let said = fold(text(message)?);
            match bare(&said) {
                said if YES.contains(&said) => Ok(true),
                said if NO.contains(&said) => Ok(false),
                _ => Err(None),
            }
        })
    }

    /// Its answer is one of these texts, or its number, from 1: the text as it is written here. What people put around either, as
    /// in `2.` and `bar!`, does not matter.
    #[must_use]
    pub fn choice(self, choices: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let choices: Vec<String> = choices.into_iter().map(Into::into).collect();
        let compared: Vec<String> = choices.iter().map(|choice| fold(choice)).collect();
        self.parse_with(move |message| {
            let said = fold(text(message)?);
            let by_text = compared.iter().position(|choice| *choice == said);
            let by_bare = || {
                compared
                    .iter()
                    .position(|choice| bare(choice) == bare(&said))
            };
            let by_number = || bare(&said).parse::<usize>().ok()?.checked_sub(1);
            let chosen = by_text.or_else(by_bare).or_else(by_number);
            let chosen = chosen.and_then(|at| choices.get(at));
            chosen.cloned().ok_or(None)
        })
    }

    /// Its answer is a file: `{"url": …, "content_type": …}`.
    #[must_use]
    pub fn media(self) -> Self {
        self.parse_with(|message| {
            let media = message.media.first().ok_or(None)?;
            Ok(json!({"url": media.url, "content_type": media.content_type}))
        })
    }

    /// Its answer is a location: `{"latitude": …, "longitude": …, "address": …, "label": …}`.
    #[must_use]
    pub fn location(self) -> Self {
        self.parse_with(|message| {
            let at = message.location.as_ref().ok_or(None)?;
            Ok(json!({
                "latitude": at.latitude,
                "longitude": at.longitude,
                "address": at.address,
                "label": at.label,
            }))
        })
    }

    /// What is said to an answer that cannot be read. Without it the question is asked again.
    #[must_use]
    pub fn or(self, hint: impl Into<String>) -> Self {
        let hint = Reply::text(hint);
        self.try_or(move |_, _| Ok(hint.clone()))
    }

    pub(crate) fn try_or(
        mut self,
        hint: impl Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.hint = Some(Arc::new(hint));
        self
    }

    /// Asks only if what has been answered before says so; else the field is left out.
    #[must_use]
    pub fn only_if(self, only_if: impl Fn(&Answers) -> bool + Send + Sync + 'static) -> Self {
        self.try_only_if(move |answers, _| Ok(only_if(answers)))
    }

    pub(crate) fn try_only_if(
        mut self,
        only_if: impl Fn(&Answers, &InboundMessage) -> Result<bool, HandlerError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.only_if = Some(Arc::new(only_if));
        self
    }

    pub(super) fn is_asked(
        &self,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<bool, HandlerError> {
        match &self.only_if {
            Some(only_if) => only_if(answers, message),
            None => Ok(true),
        }
    }

    pub(super) fn asked(
        &self,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        (self.asked)(answers, message)
    }

    pub(super) fn read(&self, message: &InboundMessage) -> Result<Value, Option<String>> {
        (self.reads)(message)
    }

    /// What is said to an answer that could not be read.
    pub(super) fn again(
        &self,
        hint: Option<String>,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        match (hint, &self.hint) {
            (Some(hint), _) => Ok(Reply::text(hint)),
            (None, Some(hint)) => hint(answers, message),
            (None, None) => self.asked(answers, message),
        }
    }
}

/// A message's text, without space around it.
fn text(message: &InboundMessage) -> Result<&str, Option<String>> {
    message.text().map(str::trim).ok_or(None)
}

impl From<&str> for Question {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Question {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}
