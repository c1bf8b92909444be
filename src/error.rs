//! Errors of a user's code.

/// Any error of a user's code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A handler that could not answer.
///
/// Twilio gets a 500 and calls the fallback URL. The text is logged once: put no number and no message into it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(#[source] BoxError);

impl HandlerError {
    /// Wraps any error, or a text.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}
