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

mod content_shape;
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
mod rich;
mod rich_content;
mod rich_wire;
mod segments;
mod split;
mod text_limit;
mod web_url;

#[doc(hidden)]
pub use content_shape::ContentShape;
pub use into_reply::IntoReply;
pub use kinds::MediaRejection;
pub use markdown::convert_markdown;
pub use markup::escape_markup;
pub use media::Media;
#[doc(hidden)]
pub use media::MediaSource;
pub use messages::{CallbackMethod, RedirectError, Reply, ReplyMessage};
pub use rich_content::ReplyContentError;
#[doc(hidden)]
pub use rich_content::{TemplateContent, TemplateKey};
#[doc(hidden)]
pub use rich_wire::WireRichContent;
pub use segments::{Segments, segments};
#[doc(hidden)]
pub use split::WireMessage;
#[doc(hidden)]
pub use text_limit::MAX_TEXT_UNITS;
#[doc(hidden)]
pub use web_url::is_web_url;
