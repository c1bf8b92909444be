//! Errors of a user's code.

/// Any error of a user's code.
///
/// It is what [`HandlerError::new`] takes.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A handler that could not answer.
///
/// Twilio gets a 500 and calls the fallback URL. The text is logged once: put no number and no message into it.
///
/// ```
/// use replyhook::{Context, HandlerError, InboundMessage};
///
/// async fn bot(_cx: Context, message: InboundMessage) -> Result<String, HandlerError> {
///     let order: u32 = message.body.trim().parse().map_err(HandlerError::new)?;
///     if order == 0 {
///         return Err(HandlerError::new("there is no order 0"));
///     }
///     Ok(format!("Order {order} ships today."))
/// }
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(#[source] BoxError);

impl HandlerError {
    /// Wraps any error, or a text.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}
