//! What a handler knows about its call, besides the message.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::HandlerError;
use super::history::{Conversing, Said};
use super::media::{Attachments, IncomingMedia};
use super::state::{Memory, State};
use crate::address::Address;
use crate::message::FallbackCause;

/// The name under which [`Context::state`] keeps.
const STATE: &str = "state";

/// What a handler knows about this call, besides the message. A clone is the same call.
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
    conversation: Option<Arc<dyn Conversing>>,
    memory: Arc<Memory>,
    attachments: Option<Arc<dyn Attachments>>,
}

impl Context {
    /// A context for calling a handler by hand, as in a test. Its conversation is a new one, and nothing of it is kept.
    pub fn new(attempt: u32, deadline: Timestamp) -> Self {
        Self {
            attempt,
            deadline,
            fallback: None,
            conversation: None,
            memory: Arc::new(Memory::new(None, Timestamp::UNIX_EPOCH)),
            attachments: None,
        }
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only a webhook has a fallback")
    )]
    pub(crate) fn with_fallback(mut self, cause: FallbackCause) -> Self {
        self.fallback = Some(Arc::new(cause));
        self
    }

    /// The same in a conversation that is kept, of which a message came at `now`.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn in_conversation(mut self, of: Arc<dyn Conversing>, now: Timestamp) -> Self {
        self.conversation = Some(of.clone());
        self.memory = Arc::new(Memory::new(Some(of), now));
        self
    }

    /// The same for a message with files.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher knows where files are")
    )]
    pub(crate) fn with_attachments(mut self, attachments: Arc<dyn Attachments>) -> Self {
        self.attachments = Some(attachments);
        self
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn memory(&self) -> Arc<Memory> {
        self.memory.clone()
    }

    /// Which attempt at this message it is, from 1. Above 1 an earlier one failed, or its process ended, and what it did
    /// may be done again.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When Twilio gets its answer whether the handler is done or not.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Why the primary webhook failed, if this message came by the fallback URL.
    pub fn fallback(&self) -> Option<&FallbackCause> {
        self.fallback.as_deref()
    }

    /// A file of the message, by its place in [`InboundMessage::media`](crate::InboundMessage::media). Nothing is fetched
    /// before it is asked for.
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

    /// Shows the author that somebody types, for 25 seconds or until the reply comes: for a bot that will be slow. On
    /// WhatsApp only; elsewhere, and where it does not work, it does nothing. It waits for Twilio, so spawn it, or join it
    /// with the work.
    ///
    /// ```
    /// use replyhook::{Context, InboundMessage};
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> String {
    ///     let (answer, ()) = futures_util::join!(ask_a_model(message.body), cx.typing());
    ///     answer
    /// }
    /// # async fn ask_a_model(text: String) -> String { text }
    /// ```
    pub async fn typing(&self) {
        if let Some(conversation) = &self.conversation {
            conversation.typing().await;
        }
    }

    /// What your bot remembers of this conversation: any type of yours that serde reads and writes, usually an enum whose
    /// variants carry what has been said so far. It survives a restart, and every machine on the same store sees it.
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
    /// What is saved counts from the moment in which this message is answered, and with it: both are one transaction. A
    /// handler that fails has changed nothing.
    pub fn state<S: Serialize + DeserializeOwned + Default>(&self) -> State<S> {
        self.state_named(STATE)
    }

    /// The same under a name, for a bot that remembers several things.
    pub fn state_named<S: Serialize + DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> State<S> {
        State::new(self.memory.clone(), name)
    }

    /// What was said in this conversation before this message, by the user and by your bot: the last `limit` texts at most,
    /// oldest first.
    ///
    /// ```
    /// use replyhook::handler::Speaker;
    /// use replyhook::{Context, HandlerError, InboundMessage};
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
    ///     if cx.is_first_contact().await? {
    ///         return Ok("Welcome! What can I do for you?".to_owned());
    ///     }
    ///     let history = cx.history(20).await?;
    ///     let asked = history.iter().rev().find(|said| said.by == Speaker::Bot);
    ///     let asked = asked.map_or("", |said| said.text.as_str());
    ///     Ok(format!("You say {:?} to {asked:?}.", message.body))
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// It is read from the journal, as far as texts are kept there (`store.retention_days`, `store.body_retention_days`), and covers
    /// all addresses that the user is known by. A message without text is in it by what came, such as `image/jpeg`; an
    /// answer that goes to somebody else, or that was not sent and will not be, is not. By hand it is empty.
    ///
    /// # Errors
    /// [`HandlerError`] when the store is away.
    pub async fn history(&self, limit: usize) -> Result<Vec<Said>, HandlerError> {
        match &self.conversation {
            Some(conversation) => conversation.said(limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Ends a [hand-over](crate::Reply::hand_over): your handler is asked again for what this user writes to the sender that
    /// this message came to. Returns whether the user was handed over. It counts at once, whatever becomes of this message.
    ///
    /// While a conversation is handed over its own messages do not come here. So this is for somebody else's: of an agent, who
    /// writes to the same sender that the matter is settled.
    ///
    /// ```
    /// use replyhook::{Context, HandlerError, InboundMessage};
    ///
    /// const AGENT: &str = "whatsapp:+15550003333";
    ///
    /// async fn bot(cx: Context, message: InboundMessage) -> Result<&'static str, HandlerError> {
    ///     if let Some(user) = message.body.strip_prefix("done ").filter(|_| message.from.as_str() == AGENT) {
    ///         return Ok(if cx.take_back(user).await? { "The bot has it again." } else { "Nobody had it." });
    ///     }
    ///     Ok("Hello!")
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// Outside of handlers it is [`HandOvers::take_back`](crate::store::HandOvers::take_back) of `App::store`. By hand it
    /// ends nothing.
    ///
    /// # Errors
    /// [`HandlerError`] when the store is away.
    pub async fn take_back(&self, user: impl Into<Address>) -> Result<bool, HandlerError> {
        match &self.conversation {
            Some(conversation) => conversation.take_back(user.into()).await,
            None => Ok(false),
        }
    }

    /// Whether this is the user's first message to this sender. A conversation that was silent for longer than content is
    /// kept (`store.retention_days`), or that was purged, begins anew. By hand it is.
    ///
    /// # Errors
    /// [`HandlerError`] when the store is away.
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
