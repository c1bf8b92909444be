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

mod echo;
#[cfg(feature = "client")]
mod forward;

use std::sync::Arc;

pub use echo::Echo;
#[cfg(feature = "client")]
pub use forward::{Forward, ForwardSetupError, ForwardTarget};
use futures_util::future::BoxFuture;
use jiff::Timestamp;

pub use crate::error::HandlerError;
use crate::message::{FallbackCause, InboundMessage};
use crate::reply::{IntoReply, Reply};

/// Answers messages.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected an async function `(Context, InboundMessage) -> impl IntoReply`",
    note = "both arguments are taken by value, the future must be `Send`, and what it returns must be something a bot \
            can say: a text, `()`, a `Reply`, or an `Option` or `Result` of these",
    note = "for a closure whose argument types are not inferred, wrap it in `handler_fn`"
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

/// What a handler knows about this call, besides the message.
#[derive(Debug, Clone)]
pub struct Context {
    attempt: u32,
    deadline: Timestamp,
    fallback: Option<Arc<FallbackCause>>,
}

impl Context {
    /// A context for calling a handler by hand, as in a test.
    pub fn new(attempt: u32, deadline: Timestamp) -> Self {
        Self {
            attempt,
            deadline,
            fallback: None,
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
}
