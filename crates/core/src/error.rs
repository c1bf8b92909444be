//! Errors of handlers.

/// Any error of your code, as [`HandlerError::new`] accepts it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error with which a handler reports that it cannot reply.
///
/// Twilio gets a 500 and calls the fallback URL. The error's text is logged, so do not put phone numbers or message
/// texts into it.
///
/// ```
/// use replyhook::{Context, HandlerError, InboundMessage};
///
/// async fn bot(_cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
///     let order: u32 = message.body.trim().parse().map_err(HandlerError::new)?;
///     if order == 0 {
///         return Err(HandlerError::new("order 0 does not exist"));
///     }
///     Ok(format!("Order {order} ships today."))
/// }
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Debug, thiserror::Error)]
// Not `transparent`, which would skip the wrapped error in the `source` chain, where callers can downcast it.
#[error("{0}")]
pub struct HandlerError(#[source] BoxError);

impl HandlerError {
    /// Wraps an error, or a text.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}
