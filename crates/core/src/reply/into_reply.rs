//! Conversion of the return values of handlers into replies.

use super::messages::{Reply, ReplyMessage};
use crate::error::{BoxError, HandlerError};

/// Return type of a handler: a text, `()`, a [`Reply`], a [`ReplyMessage`], or an `Option` or `Result` of these.
///
/// Your own types can implement it:
///
/// ```
/// use replyhook::{Context, HandlerError, InboundMessage, IntoReply, Reply};
///
/// struct Price { cents: u64 }
///
/// impl IntoReply for Price {
///     fn into_reply(self) -> Result<Reply, HandlerError> {
///         Ok(Reply::text(format!("{}.{:02} €", self.cents / 100, self.cents % 100)))
///     }
/// }
///
/// async fn price(_cx: Context, _message: InboundMessage) -> Option<Price> {
///     Some(Price { cents: 250 })
/// }
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(price);
/// # assert_eq!(Price { cents: 250 }.into_reply().unwrap(), Reply::text("2.50 €"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not something a bot can say",
    label = "a handler returns a text (`&str`, `String`), nothing (`()`), a `Reply`, or an `Option` or `Result` of these",
    note = "turn it into a text with `.to_string()`, or build a `replyhook::Reply`"
)]
pub trait IntoReply {
    /// Converts the value into a reply.
    ///
    /// # Errors
    /// [`HandlerError`] if the value is the `Err` of a `Result`, or if your own type's conversion fails.
    fn into_reply(self) -> Result<Reply, HandlerError>;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.check().map_err(HandlerError::new)?;
        Ok(self)
    }
}

impl IntoReply for ReplyMessage {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Reply::from(self).into_reply()
    }
}

impl IntoReply for &str {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::text(self))
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::text(self))
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::none())
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_or_else(|| Ok(Reply::none()), T::into_reply)
    }
}

impl<T: IntoReply, E: Into<BoxError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_err(HandlerError::new)?.into_reply()
    }
}
