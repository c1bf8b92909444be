//! Replies of a bot, independent of TwiML and the REST API: a [`Reply`] consists of messages, and [`IntoReply`] creates
//! it.
//!
//! ```
//! use replyhook::reply::{Media, Reply, ReplyMessage};
//!
//! let reply = Reply::text("Here it is.")
//!     .and(ReplyMessage::text("Your receipt").media(Media::url("https://cdn.example.com/r.png")));
//! assert!(!reply.is_empty());
//! ```

mod inline_markdown;
mod into_reply;
#[doc(hidden)]
pub mod kinds;
mod markdown;
mod markup;
mod media;
mod messages;
#[doc(hidden)]
pub mod names;
mod segments;
mod split;

pub use into_reply::IntoReply;
pub use kinds::MediaRejection;
pub use markdown::convert_markdown;
pub use markup::escape_markup;
pub use media::Media;
#[doc(hidden)]
pub use media::MediaSource;
#[doc(hidden)]
pub use messages::is_web_url;
pub use messages::{CallbackMethod, RedirectError, Reply, ReplyMessage};
pub use segments::{Segments, segments};
#[doc(hidden)]
pub use split::MAX_TEXT_UNITS;
#[doc(hidden)]
pub use split::WireMessage;
