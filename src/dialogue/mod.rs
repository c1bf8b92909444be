//! Follow-up questions: a [`Form`] asks them one by one, parses the answers, and passes all of them to a function.
//!
//! ```
//! use replyhook::dialogue::{Form, Question};
//! use replyhook::route::{Router, text};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Booking {
//!     name: String,
//!     guests: u8,
//!     outside: bool,
//! }
//!
//! let booking = Form::new("booking")
//!     .ask("name", "What is your name?")
//!     .ask("guests", Question::new("For how many?").parse::<u8>().hint("A number, please."))
//!     .ask("outside", Question::new("Outside?").yes_or_no())
//!     .cancel(["never mind", "forget it"], "Maybe another time.")
//!     .done(|_cx, booking: Booking| async move {
//!         format!("Booked for {}, {} guests.", booking.name, booking.guests)
//!     });
//! let bot = Router::new().form(text("book"), booking).otherwise("Write *book*.");
//! # fn is_handler(_: impl replyhook::Handler) {}
//! # is_handler(bot);
//! ```
//!
//! The answers so far are stored in the conversation's state ([`Context::state`]), in the same transaction as the reply
//! that asks the next question. So a form survives a restart, and continues on another server. A crash neither skips a
//! question nor counts an answer twice.

mod question;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
pub use question::{Answers, Question};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::choice::title_keyword;
use crate::folding::{IntoTexts, fold};
use crate::handler::{Context, HandlerError, State};
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply, ReplyMessage};
use replyhook_core::sms_keywords::has_sms_keywords;

/// Name of the conversation state that stores the progress of a form. Part of the stored data. It is not
/// reserved: a bot that uses `state_named("form")` overwrites it.
const STATE_NAME: &str = "form";
/// Default lifetime of an unanswered question, long enough for a user who answers the next morning.
const DEFAULT_TTL: Duration = Duration::from_hours(24);

/// Sequence of questions whose answers go to the function of [`Form::done`].
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::dialogue::{Answers, Form, Question};
/// use replyhook::route::{Router, text};
/// use replyhook::{App, testing::TestBot};
///
/// let order = || Form::new("order")
///     .ask("dish", Question::new("Pizza or pasta?").choice(["pizza", "pasta"]))
///     .cancel("stop it", "As you like.")
///     .done(|_cx, answers: Answers| async move { answers.of::<String>("dish") });
/// let bot = move || App::builder().handler(Router::new().form(text("order"), order()));
/// let bot = TestBot::start(bot).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("order").await.assert_reply("Pizza or pasta?");
/// ana.says("soup").await.assert_reply("Pizza or pasta?");
/// ana.says("2").await.assert_reply("pasta");
/// # });
/// ```
#[derive(Clone)]
pub struct Form {
    name: String,
    version: u32,
    questions: Vec<(String, Question)>,
    cancel_words: Vec<String>,
    cancel_reply: CancelReplyFn,
    ttl: Duration,
    done: Option<DoneFn>,
}

type DoneFn = Arc<
    dyn Fn(Context, &InboundMessage, Answers) -> BoxFuture<'static, Result<Reply, HandlerError>>
        + Send
        + Sync,
>;

type CancelReplyFn = Arc<dyn Fn(&InboundMessage) -> Result<Reply, HandlerError> + Send + Sync>;

/// Progress of a form in one conversation.
#[derive(Serialize, Deserialize)]
pub(crate) struct FormProgress {
    // The field names are part of the stored data.
    form: String,
    version: u32,
    answers: Answers,
    /// Field of the question that was asked last.
    #[serde(default)]
    asked: String,
}

/// Error of a form that has all of its answers.
#[derive(Debug, thiserror::Error)]
enum FormTypeError {
    // Omits serde's own message, which may quote an answer.
    #[error(
        "the answers of form {0:?} do not fit the type that `done` takes; compare its fields with the form's fields and parsers"
    )]
    NotOfType(String),
}

impl FormProgress {
    pub(crate) fn form_name(&self) -> &str {
        &self.form
    }
}

/// Loads the progress of the conversation's current form, if any.
pub(crate) async fn load_progress(cx: &Context) -> Result<Option<FormProgress>, HandlerError> {
    progress_state(cx).load().await
}

fn progress_state(cx: &Context) -> State<Option<FormProgress>> {
    cx.state_named(STATE_NAME)
}

impl Form {
    /// Creates a form without questions. Its name is stored with the answers and must be unique within the bot.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: 1,
            questions: Vec::new(),
            cancel_words: Vec::new(),
            cancel_reply: Arc::new(|_| Ok(Reply::none())),
            ttl: DEFAULT_TTL,
            done: None,
        }
    }

    /// Sets the version; the default is 1. Raise it when the questions change: conversations in the middle of another
    /// version start again with the first question.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Adds a field and its question: a text, or a [`Question`] that determines how the answer is parsed.
    #[must_use]
    pub fn ask(mut self, field: impl Into<String>, question: impl Into<Question>) -> Self {
        self.questions.push((field.into(), question.into()));
        self
    }

    /// Cancels the form when the whole message is one of these words, compared as by [`text`](crate::route::text()).
    ///
    /// Do not use a keyword that Twilio handles itself on SMS and RCS, such as `cancel`, `end` or `quit`, after which the user
    /// would get no further message. See [`sms_keyword`](crate::choice::sms_keyword).
    #[must_use]
    pub fn cancel(self, words: impl IntoTexts, reply: impl Into<ReplyMessage>) -> Self {
        let reply = Reply::from(reply.into());
        self.cancel_with(words, move |_| Ok(reply.clone()))
    }

    pub(crate) fn cancel_with(
        mut self,
        words: impl IntoTexts,
        reply: impl Fn(&InboundMessage) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.cancel_words = words.texts().iter().map(|word| fold(word)).collect();
        self.cancel_reply = Arc::new(reply);
        self
    }

    /// Discards the form if its question is not answered within this time; the default is 24 hours. The user's next
    /// message is routed like any other.
    #[must_use]
    pub fn expires_in(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the async function that gets the context and the answers, as your own type with the form's fields.
    ///
    /// If it fails, the last answer is not stored: the last question stays open, and the user can answer it again.
    #[must_use]
    pub fn done<T, F, Fut>(self, done: F) -> Self
    where
        T: DeserializeOwned + Send,
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoReply,
    {
        let name = self.name.clone();
        self.done_with(move |cx, _, answers| {
            let future = answers.to_typed::<T>().map(|answers| done(cx, answers));
            let name = name.clone();
            Box::pin(async move {
                match future {
                    Some(future) => future.await.into_reply(),
                    None => Err(HandlerError::new(FormTypeError::NotOfType(name))),
                }
            })
        })
    }

    pub(crate) fn done_with(
        mut self,
        done: impl Fn(
            Context,
            &InboundMessage,
            Answers,
        ) -> BoxFuture<'static, Result<Reply, HandlerError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.done = Some(Arc::new(done));
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the form with its first question.
    pub(crate) async fn start(
        &self,
        cx: &Context,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        let questions = self.questions.iter();
        let answers = questions.flat_map(|(_, question)| question.answer_words());
        cx.offer_answers(self.cancel_words.iter().chain(answers.clone()));
        let mut words = self.cancel_words.iter().chain(answers);
        if has_sms_keywords(message.channel())
            && let Some(keyword) = words.find_map(|word| title_keyword(word))
        {
            tracing::warn!(
                form = self.name,
                keyword,
                "a cancel word or an answer is a keyword that Twilio handles itself on SMS and RCS: a user who writes it unsubscribes, subscribes or gets help; use another word"
            );
        }
        self.ask_next(cx, message, Answers::default()).await
    }

    /// Handles a message as the answer to the question that was asked last.
    pub(crate) async fn handle_answer(
        &self,
        cx: &Context,
        message: &InboundMessage,
        progress: FormProgress,
    ) -> Result<Reply, HandlerError> {
        // Before the version check, so that a conversation in an older version can be canceled too.
        // Not a tap on a choice of the open question: its title is an answer, although it may be a cancel word too.
        let is_answer =
            || message.is_tap_on_choice() && message.choice().is_some_and(|chosen| chosen.current);
        if !self.cancel_words.is_empty()
            && self.cancel_words.contains(&fold(&message.body))
            && !is_answer()
        {
            progress_state(cx).clear().await?;
            return (self.cancel_reply)(message);
        }
        if progress.version != self.version {
            return self.start(cx, message).await;
        }
        let mut answers = progress.answers;
        // The form no longer has the question that was asked. The message answers no other question, so it is dropped.
        let Some((field, question)) = self.find_question(&progress.asked) else {
            return self.ask_next(cx, message, answers).await;
        };
        match question.parse_answer(message) {
            Ok(value) => {
                answers.insert(field, value);
                self.ask_next(cx, message, answers).await
            }
            Err(hint) => {
                let reply = question.ask_again(hint, &answers, message)?;
                // Saved although nothing was answered: the form's lifetime starts again with each question.
                self.save_progress(cx, answers, field).await?;
                Ok(reply)
            }
        }
    }

    fn find_question(&self, field: &str) -> Option<(&str, &Question)> {
        let questions = self.questions.iter();
        let mut questions = questions.map(|(field, question)| (field.as_str(), question));
        questions.find(|(known, _)| *known == field)
    }

    /// Returns the first question without an answer whose condition holds.
    fn next_question(
        &self,
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Option<(&str, &Question)>, HandlerError> {
        for (field, question) in &self.questions {
            if !answers.has(field) && question.is_asked(answers, message)? {
                return Ok(Some((field, question)));
            }
        }
        Ok(None)
    }

    /// Asks the next question, or calls the function of [`done`](Self::done) if there is none.
    async fn ask_next(
        &self,
        cx: &Context,
        message: &InboundMessage,
        answers: Answers,
    ) -> Result<Reply, HandlerError> {
        if let Some((field, question)) = self.next_question(&answers, message)? {
            let reply = question.render(&answers, message)?;
            self.save_progress(cx, answers, field).await?;
            return Ok(reply);
        }
        // State changes are saved together with the reply. If `done` fails, nothing is saved, and the form stays open.
        progress_state(cx).clear().await?;
        match &self.done {
            Some(done) => done(cx.clone(), message, answers).await,
            None => Ok(Reply::none()),
        }
    }

    async fn save_progress(
        &self,
        cx: &Context,
        answers: Answers,
        field: &str,
    ) -> Result<(), HandlerError> {
        let progress = FormProgress {
            form: self.name.clone(),
            version: self.version,
            answers,
            asked: field.to_owned(),
        };
        let state = progress_state(cx).expires_in(self.ttl);
        state.save(&Some(progress)).await
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.questions.iter().map(|(field, _)| field).collect();
        f.debug_struct("Form")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("questions", &fields)
            .finish_non_exhaustive()
    }
}
