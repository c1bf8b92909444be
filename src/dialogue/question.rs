//! Questions of a form, the parsing of answers, and the answers so far.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::choice::{Choice, Choices};
use crate::folding::{fold, normalize, trim_punctuation};
use crate::handler::HandlerError;
use crate::message::InboundMessage;
use crate::reply::{Reply, ReplyMessage};

/// Answers to a form so far, by field.
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
    /// Returns the answer for a field, if it was given and has this type.
    pub fn of<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        serde_json::from_value(self.0.get(field)?.clone()).ok()
    }

    pub(super) fn to_typed<T: DeserializeOwned>(&self) -> Option<T> {
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

/// Shows the fields and hides the answers, which users wrote.
impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Question of a form, with the parser of its answer.
///
/// ```
/// use replyhook::dialogue::Question;
///
/// let guests = Question::new("For how many?").parse::<u8>().hint("A number, please.");
/// let size = Question::new("Small or large?").choice(["small", "large"]);
/// let even = Question::new("An even number?").parse_with(|message| {
///     let number: u32 = message.body.trim().parse().map_err(|_| None)?;
///     if number % 2 == 0 { Ok(number) } else { Err(Some(format!("{number} is odd."))) }
/// });
/// # drop((guests, size, even));
/// ```
#[derive(Clone)]
pub struct Question {
    render: RenderFn,
    parse_answer: ParseFn,
    hint: Option<RenderFn>,
    only_if: Option<ConditionFn>,
    /// Words that it takes as an answer, if it names them.
    answer_words: Vec<String>,
}

/// Creates the text of a question or hint from the answers so far and the message.
type RenderFn = Arc<dyn Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError> + Send + Sync>;
/// Parses an answer. The error is a hint for the user, or `None` for the question's own hint.
type ParseFn = Arc<dyn Fn(&InboundMessage) -> Result<Value, Option<String>> + Send + Sync>;
type ConditionFn =
    Arc<dyn Fn(&Answers, &InboundMessage) -> Result<bool, HandlerError> + Send + Sync>;

impl Question {
    /// Creates a question that accepts any text as its answer.
    pub fn new(text: impl Into<ReplyMessage>) -> Self {
        let reply = Reply::from(text.into());
        Self::with(move |_| reply.clone())
    }

    /// Creates a question whose text depends on the earlier answers.
    pub fn with(render: impl Fn(&Answers) -> Reply + Send + Sync + 'static) -> Self {
        Self::try_with(move |answers, _| Ok(render(answers)))
    }

    pub(crate) fn try_with(
        render: impl Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            render: Arc::new(render),
            parse_answer: Arc::new(|message| Ok(Value::from(text(message)?))),
            hint: None,
            only_if: None,
            answer_words: Vec::new(),
        }
    }

    /// Accepts a text that parses as `T`, such as a number.
    #[must_use]
    pub fn parse<T: FromStr + Serialize>(self) -> Self {
        self.parse_with(|message| {
            let text = text(message)?;
            // Try the text as written first, since normalization changes letters, as in a name. Normalized, full-width
            // digits parse as numbers.
            let parsed = text.parse::<T>().or_else(|_| normalize(text).parse());
            parsed.map_err(|_| None)
        })
    }

    /// Parses the answer with your function. On failure it may return a hint, which is sent instead of the question's
    /// own.
    #[must_use]
    pub fn parse_with<T: Serialize>(
        mut self,
        parse: impl Fn(&InboundMessage) -> Result<T, Option<String>> + Send + Sync + 'static,
    ) -> Self {
        self.parse_answer =
            Arc::new(move |message| serde_json::to_value(parse(message)?).map_err(|_| None));
        self
    }

    /// Accepts yes or no in several languages, as `true` or `false`.
    #[must_use]
    pub fn yes_or_no(self) -> Self {
        // Folded, like the text that they are compared with: `si` is also `Sí`, and `nao` is also `não`.
        const YES: [&str; 12] = [
            "yes", "y", "yeah", "yep", "sure", "ok", "ja", "si", "oui", "sim", "да", "👍",
        ];
        const NO: [&str; 8] = ["no", "n", "nope", "nein", "non", "nao", "нет", "👎"];
        self.parse_with(|message| {
            let folded = fold(text(message)?);
            match trim_punctuation(&folded) {
                answer if YES.contains(&answer) => Ok(true),
                answer if NO.contains(&answer) => Ok(false),
                _ => Err(None),
            }
        })
    }

    /// Accepts one of these texts, or its number counted from 1. The answer is the text as written here.
    ///
    /// Punctuation around either is ignored, as in `2.` and `bar!`.
    #[must_use]
    pub fn choice(mut self, choices: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let choices: Vec<String> = choices.into_iter().map(Into::into).collect();
        self.answer_words.clone_from(&choices);
        let folded_choices: Vec<String> = choices.iter().map(|choice| fold(choice)).collect();
        self.parse_with(move |message| {
            let folded = fold(text(message)?);
            let by_text = folded_choices.iter().position(|choice| *choice == folded);
            let by_trimmed_text = || {
                folded_choices
                    .iter()
                    .position(|choice| trim_punctuation(choice) == trim_punctuation(&folded))
            };
            let by_number = || {
                trim_punctuation(&folded)
                    .parse::<usize>()
                    .ok()?
                    .checked_sub(1)
            };
            // The most specific comparison first: a choice such as "C!" or "2" is found by its text before a number or
            // a bare text can select another one.
            let chosen = by_text.or_else(by_trimmed_text).or_else(by_number);
            let chosen = chosen.and_then(|index| choices.get(index));
            chosen.cloned().ok_or(None)
        })
    }

    /// Shows choices with the question, and accepts one of them: a tap, the title or the number. The answer is the ID.
    ///
    /// [`ReplyMessage::choices`] describes the forms that the channels show. Invalid choices fail the handler.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use replyhook::dialogue::{Answers, Form, Question};
    /// use replyhook::route::{Router, anything};
    /// use replyhook::{App, testing::TestBot};
    ///
    /// let day = || Form::new("day")
    ///     .ask("day", Question::new("When?").choices(["Today", "Tomorrow"]))
    ///     .done(|_cx, answers: Answers| async move { answers.of::<String>("day") });
    /// let bot = TestBot::start(move || App::builder().handler(Router::new().form(anything(), day()))).await;
    /// let ana = bot.sms("+34600000001");
    /// ana.says("hi").await.assert_reply("When?\n1. Today\n2. Tomorrow");
    /// ana.says("2").await.assert_reply("Tomorrow");
    /// # });
    /// ```
    #[must_use]
    pub fn choices(mut self, choices: impl IntoIterator<Item = impl Into<Choice>>) -> Self {
        let choices = Choices::new(choices);
        let (shown, render) = (choices.clone(), self.render);
        self.render = Arc::new(move |answers, message| {
            let reply = render(answers, message)?;
            // Invalid choices fail here, when the question is asked.
            Ok(reply.choices(shown.clone().map_err(HandlerError::new)?))
        });
        self.parse_with(move |message| {
            if let Some(chosen) = message.choice() {
                // A tap on an earlier question, or on a button of another kind, does not answer this one.
                let is_offered =
                    |choices: &Choices| choices.iter().any(|choice| choice.id() == chosen.id);
                let is_answer = chosen.current && choices.as_ref().is_ok_and(is_offered);
                return is_answer.then_some(chosen.id).ok_or(None);
            }
            // The question may expire before the form does.
            let found = choices
                .as_ref()
                .ok()
                .and_then(|choices| choices.find(&message.body));
            found.map(|choice| choice.id().to_owned()).ok_or(None)
        })
    }

    pub(super) fn answer_words(&self) -> &[String] {
        &self.answer_words
    }

    /// Accepts a message with media. The answer is its first file, as `{"url": …, "content_type": …}`.
    #[must_use]
    pub fn media(self) -> Self {
        self.parse_with(|message| {
            let media = message.media.first().ok_or(None)?;
            Ok(json!({"url": media.url, "content_type": media.content_type}))
        })
    }

    /// Accepts a location, as `{"latitude": …, "longitude": …, "address": …, "label": …}`.
    #[must_use]
    pub fn location(self) -> Self {
        self.parse_with(|message| {
            let location = message.location.as_ref().ok_or(None)?;
            Ok(json!({
                "latitude": location.latitude,
                "longitude": location.longitude,
                "address": location.address,
                "label": location.label,
            }))
        })
    }

    /// Sets the text that is sent after an answer that cannot be parsed. By default the question is repeated.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        let hint = Reply::text(hint);
        self.try_hint(move |_, _| Ok(hint.clone()))
    }

    pub(crate) fn try_hint(
        mut self,
        hint: impl Fn(&Answers, &InboundMessage) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.hint = Some(Arc::new(hint));
        self
    }

    /// Asks the question only if the condition on the earlier answers holds. Otherwise the field is omitted.
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

    pub(super) fn render(
        &self,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        (self.render)(answers, message)
    }

    pub(super) fn parse_answer(&self, message: &InboundMessage) -> Result<Value, Option<String>> {
        (self.parse_answer)(message)
    }

    /// Returns the reply to an answer that could not be parsed: the parser's hint, else the question's hint, else the
    /// question.
    pub(super) fn ask_again(
        &self,
        hint: Option<String>,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        match (hint, &self.hint) {
            (Some(hint), _) => Ok(Reply::text(hint)),
            (None, Some(hint)) => hint(answers, message),
            (None, None) => self.render(answers, message),
        }
    }
}

/// Returns the message's text without white space around it. A blank text is not an answer.
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
