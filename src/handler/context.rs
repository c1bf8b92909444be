//! [`Context`]: information about one handler call besides the message.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::history::{ConversationAccess, HistoryEntry};
use super::media::{Attachments, IncomingMedia};
use super::state::{State, StateStore};
use crate::address::Address;
#[cfg(feature = "testing")]
use crate::lock::IgnorePoison;
use crate::message::FallbackCause;
use replyhook_core::HandlerError;

// Part of the stored record: with another name, saved states are not found.
const STATE: &str = "state";

/// Information about one handler call besides the message. A clone refers to the same call.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Context, HandlerError, InboundMessage};
///
/// async fn bot(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
///     if cx.fallback().is_none() {
///         return Err(HandlerError::new("the warehouse does not answer"));
///     }
///     Ok(format!("Attempt {} at: {}", cx.attempt(), message.body))
/// }
///
/// let bot = TestBot::start(|| App::builder().handler(bot)).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("order 42").await.assert_fallback("Attempt 2 at: order 42");
/// # });
/// ```
#[derive(Clone)]
pub struct Context {
    attempt: u32,
    deadline: Timestamp,
    fallback: Option<Arc<FallbackCause>>,
    conversation: Option<Arc<dyn ConversationAccess>>,
    state_store: Arc<StateStore>,
    attachments: Option<Arc<dyn Attachments>>,
    /// Words that the handler takes as an answer, for the test kit.
    #[cfg(feature = "testing")]
    answer_words: Option<Arc<Mutex<Vec<String>>>>,
}

impl Context {
    /// Creates a context for calling a handler directly, as in a test.
    ///
    /// Its conversation is a new one, without history, files or a store. State lives only as long as the context.
    pub fn new(attempt: u32, deadline: Timestamp) -> Self {
        Self {
            attempt,
            deadline,
            fallback: None,
            conversation: None,
            // The time only matters to `State::expires_in`, and nothing reads this state at a later time.
            state_store: Arc::new(StateStore::new(None, Timestamp::UNIX_EPOCH)),
            attachments: None,
            #[cfg(feature = "testing")]
            answer_words: None,
        }
    }

    /// Collects the words of [`offer_answers`](Self::offer_answers).
    #[cfg(feature = "testing")]
    pub(crate) fn with_answer_words(mut self) -> (Self, Arc<Mutex<Vec<String>>>) {
        let words = Arc::<Mutex<Vec<String>>>::default();
        self.answer_words = Some(words.clone());
        (self, words)
    }

    /// Records words that the user may answer with. The test kit reports those that are consent keywords.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "only the test kit collects them")
    )]
    #[cfg_attr(
        not(feature = "route"),
        expect(dead_code, reason = "only forms take words")
    )]
    pub(crate) fn offer_answers<'a>(&self, words: impl Iterator<Item = &'a String>) {
        #[cfg(feature = "testing")]
        if let Some(collected) = &self.answer_words {
            collected.lock().ignore_poison().extend(words.cloned());
        }
        #[cfg(not(feature = "testing"))]
        drop(words);
    }

    /// Sets the cause of a fallback call.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only a webhook has a fallback")
    )]
    pub(crate) fn with_fallback(mut self, cause: FallbackCause) -> Self {
        self.fallback = Some(Arc::new(cause));
        self
    }

    /// Attaches a stored conversation, one of whose messages arrived at `now`.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn in_conversation(
        mut self,
        conversation: Arc<dyn ConversationAccess>,
        now: Timestamp,
    ) -> Self {
        self.conversation = Some(conversation.clone());
        // States expire relative to the message's arrival, so that a slow or repeated attempt sees the same states.
        self.state_store = Arc::new(StateStore::new(Some(conversation), now));
        self
    }

    /// Attaches the files of a message.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher attaches files")
    )]
    pub(crate) fn with_attachments(mut self, attachments: Arc<dyn Attachments>) -> Self {
        self.attachments = Some(attachments);
        self
    }

    /// Returns the states of this call. The dispatcher keeps them, and reads the handler's changes when it is done.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn state_store(&self) -> Arc<StateStore> {
        self.state_store.clone()
    }

    /// Returns the number of this attempt, counted from 1.
    ///
    /// Above 1, an earlier attempt failed or its process ended. Its side effects may happen again.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the time at which Twilio gets a response, even if the handler is still running.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Returns the reason why the primary webhook failed, if Twilio called the fallback URL.
    pub fn fallback(&self) -> Option<&FallbackCause> {
        self.fallback.as_deref()
    }

    /// Returns a file of the message, by its index in [`InboundMessage::media`](crate::InboundMessage::media).
    ///
    /// Nothing is fetched until you call a method of the result. An index without a file is an error of those methods.
    ///
    /// ```no_run
    /// use replyhook::{Context, HandlerError, InboundMessage};
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    ///     if message.media.is_empty() {
    ///         return Ok("Send me a picture.".to_owned());
    ///     }
    ///     let saved = cx.media(0).save(format!("pictures/{}", message.message_sid)).await?;
    ///     Ok(format!("{} bytes, thank you.", saved.length))
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    pub fn media(&self, index: usize) -> IncomingMedia {
        IncomingMedia::new(self.attachments.clone(), index)
    }

    /// Shows a typing indicator to the user until the reply arrives; on WhatsApp, for at most 25 seconds.
    ///
    /// Works on WhatsApp and RCS. On other channels, and if Twilio rejects the call, nothing happens. The call waits for Twilio:
    /// spawn it, or join it with the slow work. `reply.typing_after_ms` sends one for every slow handler.
    ///
    /// ```
    /// use replyhook::{Context, InboundMessage};
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> String {
    ///     let (reply, ()) = futures_util::join!(ask_a_model(message.body), cx.typing());
    ///     reply
    /// }
    /// # async fn ask_a_model(text: String) -> String { text }
    /// ```
    pub async fn typing(&self) {
        if let Some(conversation) = &self.conversation {
            conversation.typing().await;
        }
    }

    /// Returns the state of this conversation: any type that serde can read and write.
    ///
    /// Usually it is an enum whose variants hold the answers so far. It survives restarts, and every server on the same
    /// store sees it.
    ///
    /// ```
    /// use replyhook::{Context, HandlerError, InboundMessage};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Default, Serialize, Deserialize)]
    /// enum Order {
    ///     #[default]
    ///     Nothing,
    ///     Dish(String),
    /// }
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    ///     let order = cx.state::<Order>();
    ///     match order.load().await? {
    ///         Order::Nothing => {
    ///             order.save(&Order::Dish(message.body)).await?;
    ///             Ok("How many?".to_owned())
    ///         }
    ///         Order::Dish(dish) => {
    ///             order.clear().await?;
    ///             Ok(format!("{} × {dish}, thank you!", message.body))
    ///         }
    ///     }
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// A saved state is stored together with the reply, in one transaction. A handler that fails changes nothing.
    pub fn state<S: Serialize + DeserializeOwned + Default>(&self) -> State<S> {
        self.state_named(STATE)
    }

    /// Returns the state with this name, for a bot with several states per conversation.
    pub fn state_named<S: Serialize + DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> State<S> {
        State::new(self.state_store.clone(), name)
    }

    /// Returns the last texts of this conversation before this message, by the user and by your bot.
    ///
    /// There are at most `limit`, oldest first.
    ///
    /// ```
    /// use replyhook::handler::Role;
    /// use replyhook::{Context, HandlerError, InboundMessage};
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    ///     if cx.is_first_contact().await? {
    ///         return Ok("Welcome! What can I do for you?".to_owned());
    ///     }
    ///     let history = cx.history(20).await?;
    ///     let question = history.iter().rev().find(|entry| entry.role == Role::Bot);
    ///     let question = question.map_or("", |entry| entry.text.as_str());
    ///     Ok(format!("You say {:?} to {question:?}.", message.body))
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// The texts come from the journal, for as long as it stores them (`store.retention_days`,
    /// `store.body_retention_days`). They cover all known addresses of the user. A message without text appears as a
    /// description of its content, such as `image/jpeg`. Replies to other recipients are left out, and so are replies
    /// that were not and will not be sent. A context from [`Context::new`] has no history.
    ///
    /// # Errors
    /// [`HandlerError`] if the store is unavailable.
    pub async fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, HandlerError> {
        match &self.conversation {
            Some(conversation) => conversation.history(limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Ends the [handoff](crate::Reply::handoff) of a user, so that your handler gets the user's messages again.
    ///
    /// Applies to the sender that this message was sent to. Returns whether the user was handed off. Takes effect
    /// immediately, even if this handler fails afterwards.
    ///
    /// During a handoff the handler does not get the user's own messages. So the call belongs in the handling of
    /// another user's message: an agent writes to the same sender that the matter is settled.
    ///
    /// ```
    /// use replyhook::{Context, HandlerError, InboundMessage};
    ///
    /// const AGENT: &str = "whatsapp:+15550003333";
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<&'static str, HandlerError> {
    ///     if let Some(user) = message.body.strip_prefix("done ").filter(|_| message.from.as_str() == AGENT) {
    ///         return Ok(if cx.end_handoff(user).await? { "The bot replies again." } else { "There was no handoff." });
    ///     }
    ///     Ok("Hello!")
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// Outside of handlers, call [`StoreHandle::end_handoff`](crate::store::StoreHandle::end_handoff) on `App::store`. A
    /// context from [`Context::new`] ends nothing and returns `false`.
    ///
    /// # Errors
    /// [`HandlerError`] if the store is unavailable.
    pub async fn end_handoff(&self, user: impl Into<Address>) -> Result<bool, HandlerError> {
        match &self.conversation {
            Some(conversation) => conversation.end_handoff(user.into()).await,
            None => Ok(false),
        }
    }

    /// Returns whether this is the user's first message to this sender.
    ///
    /// Messages that were purged, or deleted after `store.retention_days`, do not count. A context from
    /// [`Context::new`] returns `true`.
    ///
    /// # Errors
    /// [`HandlerError`] if the store is unavailable.
    pub async fn is_first_contact(&self) -> Result<bool, HandlerError> {
        match &self.conversation {
            Some(conversation) => conversation.is_new().await,
            None => Ok(true),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("attempt", &self.attempt)
            .field("deadline", &self.deadline)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}
