//! Follow-up questions: a [`Form`] asks one after the other, reads the answers, and hands them over when it has them all.
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
//!     .ask("guests", Question::new("For how many?").parse::<u8>().or("A number, please."))
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
//! What has been answered is kept in the conversation's memory ([`Context::state`]), and saved with the reply that asks the next
//! question, in one transaction: it survives a restart, another machine may go on, and a crash neither asks twice nor skips.

mod question;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
pub use question::{Answers, Question};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folding::fold;
use super::{Context, HandlerError, State};
use crate::handler::route::Texts;
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply, ReplyMessage};

/// The name under which a form's answers are kept.
const KEPT: &str = "form";
/// For people who go to bed over a question.
const LASTS: Duration = Duration::from_hours(24);

/// Questions in a row. [`Form::done`] ends its making.
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
    cancel: Vec<String>,
    cancelled: Cancelled,
    lasts: Duration,
    done: Option<Done>,
}

type Done = Arc<
    dyn Fn(Context, &InboundMessage, Answers) -> BoxFuture<'static, Result<Reply, HandlerError>>
        + Send
        + Sync,
>;

type Cancelled = Arc<dyn Fn(&InboundMessage) -> Result<Reply, HandlerError> + Send + Sync>;

/// How far a form has come, as it is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Progress {
    form: String,
    version: u32,
    answers: Answers,
    /// The field that was asked for.
    #[serde(default)]
    asked: String,
}

/// Why a form could not hand over.
#[derive(Debug, thiserror::Error)]
enum FormError {
    /// serde's text may quote an answer.
    #[error(
        "the answers of the form {0:?} are not of the type that `done` takes: compare fields and parsers"
    )]
    NotOfType(String),
}

impl Progress {
    /// The form's name.
    pub(crate) fn form(&self) -> &str {
        &self.form
    }
}

/// How far the form has come that a conversation is in, if it is in one.
pub(crate) async fn running(cx: &Context) -> Result<Option<Progress>, HandlerError> {
    kept(cx).load().await
}

fn kept(cx: &Context) -> State<Option<Progress>> {
    cx.state_named(KEPT)
}

impl Form {
    /// Without questions. The name is kept with the answers: one form of a bot has it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: 1,
            questions: Vec::new(),
            cancel: Vec::new(),
            cancelled: Arc::new(|_| Ok(Reply::none())),
            lasts: LASTS,
            done: None,
        }
    }

    /// Raise it when the questions change: whoever is in the middle of another version is asked from the beginning.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Asks for a field: by a text, or a [`Question`] that says how its answer is read.
    #[must_use]
    pub fn ask(mut self, field: impl Into<String>, question: impl Into<Question>) -> Self {
        self.questions.push((field.into(), question.into()));
        self
    }

    /// Ends the form when the whole message is one of these words, compared as [`text`](super::route::text()) does.
    ///
    /// Do not use `stop`, `stopall`, `unsubscribe`, `cancel`, `end`, `quit`, `optout` or `revoke`: on SMS they are Twilio's
    /// opt-out keywords, and the user would get no further message.
    #[must_use]
    pub fn cancel(self, words: impl Texts, reply: impl Into<ReplyMessage>) -> Self {
        let reply = Reply::from(reply.into());
        self.cancel_with(words, move |_| Ok(reply.clone()))
    }

    pub(crate) fn cancel_with(
        mut self,
        words: impl Texts,
        reply: impl Fn(&InboundMessage) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.cancel = words.texts().iter().map(|word| fold(word)).collect();
        self.cancelled = Arc::new(reply);
        self
    }

    /// Forgets the answers when none has come for so long; without this after a day. The next message is one as any other.
    #[must_use]
    pub fn expires_in(mut self, lasts: Duration) -> Self {
        self.lasts = lasts;
        self
    }

    /// What happens with the answers: an async function of the context and a type of yours with the fields that were asked for.
    /// Where it fails, the last answer has not been given, and may be given again.
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
            let read = answers.read::<T>().map(|answers| done(cx, answers));
            let name = name.clone();
            Box::pin(async move {
                match read {
                    Some(done) => done.await.into_reply(),
                    None => Err(HandlerError::new(FormError::NotOfType(name))),
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

    /// Asks the first question.
    pub(crate) async fn begin(
        &self,
        cx: &Context,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        self.next(cx, message, Answers::default()).await
    }

    /// Takes a message for the answer to the question that is open.
    pub(crate) async fn go_on(
        &self,
        cx: &Context,
        message: &InboundMessage,
        progress: Progress,
    ) -> Result<Reply, HandlerError> {
        if !self.cancel.is_empty() && self.cancel.contains(&fold(&message.body)) {
            kept(cx).clear().await?;
            return (self.cancelled)(message);
        }
        if progress.version != self.version {
            return self.begin(cx, message).await;
        }
        let mut answers = progress.answers;
        // To a question that is there no more this is no answer, and to another one neither.
        let Some((field, question)) = self.question(&progress.asked) else {
            return self.next(cx, message, answers).await;
        };
        match question.read(message) {
            Ok(value) => {
                answers.insert(field, value);
                self.next(cx, message, answers).await
            }
            Err(hint) => {
                let again = question.again(hint, &answers, message)?;
                self.keep(cx, answers, field).await?;
                Ok(again)
            }
        }
    }

    fn question(&self, field: &str) -> Option<(&str, &Question)> {
        let questions = self.questions.iter();
        let mut questions = questions.map(|(field, question)| (field.as_str(), question));
        questions.find(|(known, _)| *known == field)
    }

    /// The first question that has no answer, and is to be asked.
    fn open(
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

    /// Asks the next question, or hands over.
    async fn next(
        &self,
        cx: &Context,
        message: &InboundMessage,
        answers: Answers,
    ) -> Result<Reply, HandlerError> {
        if let Some((field, question)) = self.open(&answers, message)? {
            let asked = question.asked(&answers, message)?;
            self.keep(cx, answers, field).await?;
            return Ok(asked);
        }
        kept(cx).clear().await?;
        match &self.done {
            Some(done) => done(cx.clone(), message, answers).await,
            None => Ok(Reply::none()),
        }
    }

    async fn keep(&self, cx: &Context, answers: Answers, asked: &str) -> Result<(), HandlerError> {
        let progress = Progress {
            form: self.name.clone(),
            version: self.version,
            answers,
            asked: asked.to_owned(),
        };
        let kept = kept(cx).expires_in(self.lasts);
        kept.save(&Some(progress)).await
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
