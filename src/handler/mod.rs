//! Your code: a [`Handler`] is asked for a [`Reply`] to each message.
//!
//! An async function of two arguments is a handler; a struct with state implements the trait. Wrap one handler in
//! another to add to it.
//!
//! ```
//! use replyhook::{Context, InboundMessage};
//!
//! async fn bot(_cx: Context, message: InboundMessage) -> String {
//!     format!("You said: {}", message.body)
//! }
//! # fn is_handler(_: impl replyhook::Handler) {}
//! # is_handler(bot);
//! ```
//!
//! A handler may take its time: past the deadline Twilio has its answer and the handler goes on. It may fail or panic:
//! Twilio gets a 500, shows it in its debugger and calls the fallback URL. It must not block its thread; what blocks
//! belongs into `tokio::task::spawn_blocking`. `body` and every other text of a message is untrusted: never hand it to
//! a shell, a query or a template as code.

mod context;
#[cfg(feature = "route")]
pub mod dialogue;
mod echo;
#[cfg(feature = "route")]
mod folding;
#[cfg(feature = "client")]
mod forward;
mod history;
mod media;
#[cfg(feature = "route")]
pub mod route;
#[cfg(feature = "rules")]
mod rules;
mod state;

pub use context::Context;
pub use echo::Echo;
#[cfg(feature = "app")]
pub(crate) use echo::named;
#[cfg(feature = "client")]
pub use forward::{Forward, ForwardSetupError, ForwardTarget};
use futures_util::future::BoxFuture;
#[cfg(feature = "app")]
pub(crate) use history::Conversing;
pub use history::{Said, Speaker};
#[cfg(feature = "app")]
pub(crate) use media::{Attachments, Files, Keeping};
pub use media::{
    FileType, IncomingMedia, MediaError, MediaErrorKind, MediaStream, ReceivedMedia, SavedMedia,
};
#[cfg(feature = "rules")]
pub use rules::{
    ExampleFailure, ExampleResult, OptOutTexts, RuleSet, Rules, RulesError, RulesFile, RulesProblem,
};
pub use state::State;
#[cfg(feature = "app")]
pub(crate) use state::{Memory, Remember};

pub use crate::error::HandlerError;
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply};

/// Answers messages.
///
/// Every async function of these two arguments is one. A type that is one itself can be put around another:
///
/// ```
/// use futures_util::future::BoxFuture;
/// use replyhook::{Context, Echo, Handler, HandlerError, InboundMessage, Reply};
///
/// /// Says nothing to who forwards chain letters.
/// struct NoChainLetters<H>(H);
///
/// impl<H: Handler> Handler for NoChainLetters<H> {
///     fn handle(&self, cx: Context, message: InboundMessage) -> BoxFuture<'_, Result<Reply, HandlerError>> {
///         if message.frequently_forwarded == Some(true) {
///             return Box::pin(async { Ok(Reply::none()) });
///         }
///         self.0.handle(cx, message)
///     }
/// }
/// # fn is_handler(_: impl Handler) {}
/// # is_handler(NoChainLetters(Echo));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected an async function `(Context, InboundMessage) -> impl IntoReply`",
    note = "both arguments are taken by value, the future must be `Send`, and what it returns must be something a bot \
            can say: a text, `()`, a `Reply`, or an `Option` or `Result` of these",
    note = "for a closure whose argument types are not inferred, wrap it in `handler_fn`",
    note = "a `Router` whose answers take a `Shared<S>` is one after `.with_state(…)`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Answers one message.
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>>;
}

impl<F, Fut> Handler for F
where
    F: Fn(Context, InboundMessage) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoReply,
{
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        let answer = self(cx, message);
        Box::pin(async move { answer.await.into_reply() })
    }
}

/// Makes the types of a closure's arguments known where the compiler does not infer them.
///
/// ```
/// use replyhook::handler_fn;
///
/// let bot = handler_fn(|_cx, message| async move { message.body });
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub fn handler_fn<F, Fut>(handler: F) -> F
where
    F: Fn(Context, InboundMessage) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoReply,
{
    handler
}
