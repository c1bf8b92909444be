//! The [`Handler`] trait: your code, which produces a [`Reply`](crate::Reply) to each inbound message.
//!
//! An async function of two arguments is a handler. A struct with state implements the trait. Wrap a handler in another
//! one to extend it.
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
//! A handler may be slow: at the deadline Twilio gets its response, and the handler keeps running. It may fail or
//! panic: Twilio gets a 500, shows it in its debugger and calls the fallback URL. It must not block its thread: run
//! blocking code with `tokio::task::spawn_blocking`.
//!
//! `body` and every other text of a message is untrusted. Never pass it to a shell, a query or a template as code.

mod context;
mod echo;
mod handler_trait;
mod history;
mod media;
mod state;

pub use context::Context;
pub use echo::Echo;
#[cfg(feature = "app")]
pub(crate) use echo::describe_content;
pub use handler_trait::{Handler, handler_fn};
#[cfg(feature = "app")]
pub(crate) use history::ConversationAccess;
pub use history::{HistoryEntry, Role};
#[cfg(feature = "app")]
pub(crate) use media::{Attachments, Files, SaveGuard};
pub use media::{
    FileType, IncomingMedia, MediaError, MediaErrorKind, MediaStream, ReceivedMedia, SavedMedia,
};
pub use state::State;
#[cfg(feature = "app")]
pub(crate) use state::{StateChange, StateStore};

pub use replyhook_core::HandlerError;
