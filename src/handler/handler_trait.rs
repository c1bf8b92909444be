//! [`Handler`], and its implementation for async functions.

use futures_util::future::BoxFuture;

use super::context::Context;
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply};
use replyhook_core::HandlerError;

/// Produces the reply to each inbound message.
///
/// Every async function of these two arguments is a handler. A handler can wrap another one:
///
/// ```
/// use futures_util::future::BoxFuture;
/// use replyhook::{Context, Echo, Handler, HandlerError, InboundMessage, Reply};
///
/// /// Sends no reply to chain letters.
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
    /// Produces the reply to one message.
    ///
    /// # Errors
    /// [`HandlerError`] fails this attempt; see the module documentation for what Twilio gets then.
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
        // Call the function here, so that the boxed future owns its future and does not borrow `self`. A panic of the
        // call itself is caught too: the dispatcher calls `handle` within its `catch_unwind`.
        let reply = self(cx, message);
        Box::pin(async move { reply.await.into_reply() })
    }
}

/// Returns a closure unchanged, and fixes the types of its arguments where the compiler does not infer them.
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
