//! Twilio's webhook parameters as types: [`InboundMessage`] and its parts, [`StatusUpdate`], [`FallbackCause`],
//! [`ConversationEvent`].
//!
//! Parameters become types in this module only. Three rules hold:
//!
//! 1. The parameters that identify a message (`MessageSid`, `AccountSid`, `From`, `To`) must be present, and the SIDs
//!    well formed. The signed string has no delimiters, so a signature alone does not guarantee the format of a value.
//! 2. A parameter on which a decision depends must not have two different values.
//! 3. Any other parameter may be missing, unknown or invalid. It becomes `None` or an enum's `Other`, and the decoded
//!    parameters stay readable in [`InboundMessage::params`].
//!
//! Source of the parameters: Twilio's "Messaging webhook request" page and captured requests.

mod conversation_event;
mod fallback;
mod flow;
mod inbound_message;
mod message_status;
mod parse;
mod parts;
mod status;

pub use conversation_event::ConversationEvent;
pub use fallback::FallbackCause;
pub use inbound_message::InboundMessage;
pub use message_status::MessageStatus;
pub use parse::{ParseError, ParseErrorKind};
pub use parts::{
    Button, GeoInfo, JsonText, ListChoice, Location, MediaItem, MessageType, OptOutType, Referral,
    ReferralSource, RepliedTo,
};
pub use status::StatusUpdate;
