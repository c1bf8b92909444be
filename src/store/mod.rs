//! The store: the durable record of messages, conversations and REST calls.
//!
//! It exists so that no acknowledged message is lost and no user receives two replies. [`Store`] combines these traits:
//!
//! - [`Journal`]: inbound messages and their responses
//! - [`Conversations`]: customer service windows, consent and dialogues
//! - [`Handoffs`]: conversations in which another system replies
//! - [`Outbox`]: messages to send via the REST API
//! - [`MediaLinks`]: files behind links
//! - [`Operator`]: commands and retention
//!
//! Each method is one transaction and is named after its use. The current time is an argument. No transaction stays
//! open while a handler or an HTTP call runs. Instead a process *claims* a message, and each later write checks the
//! claim. A process that has lost its claim cannot write.
//!
//! ```
//! use replyhook::store::StoreUrl;
//!
//! let url: StoreUrl = "sqlite:replyhook.db".parse()?;
//! assert_eq!(url.to_string(), "sqlite:replyhook.db");
//! assert!("mysql://localhost".parse::<StoreUrl>().is_err());
//! # Ok::<(), replyhook::store::StoreUrlError>(())
//! ```

mod access;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod check;
mod conversations;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod decisions;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod expiry;
mod future;
mod handoff;
mod journal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod link_rows;
mod media;
mod new_inbound;
mod operator;
mod outbound_message;
mod outbox;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod owner;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod packing;
mod redacted_params;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod states;
mod store_trait;
mod submission;
mod url;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod versions;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use access::Access;
pub use conversations::{
    ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource, ConsentState,
    Conversation, Conversations, Dialogue, EarlierMessage, OpenWindow, WINDOW,
};
pub use error::{StoreError, StoreErrorKind};
pub use future::StoreFuture;
pub use handoff::{HandoffChange, HandoffRow, Handoffs};
pub use journal::{
    AcceptOutcome, BacklogMessage, Claim, ClaimedBacklog, Completion, CrashPolicy, DeadMessage,
    DeadReason, DialogueChange, FailOutcome, Journal, QueuedMessage, ReplyDecision, ReplyPath,
    ReplyQueue, SavedResponse, TurnStatus,
};
pub use media::{
    CHUNK_BYTES, FileHash, LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkSigningKey, LinkSource,
    LinkTarget, LinkTokenHash, MediaLinks, NewLink, ResolvedLink, TwilioMedia,
};
#[cfg(feature = "rules")]
pub(crate) use new_inbound::ConsentEffect;
pub use new_inbound::{ConsentKeyword, NewInbound};
pub use operator::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, Operator, OutboundDetails, PurgeReport,
    Retention,
};
pub use outbound_message::{
    NewOutbound, OutboundMessage, OutboundRow, OutboundState, ScheduledMessage, SendOutcome,
};
pub use outbox::{Outbox, OutboxStats, StatusEffect, StatusEvent};
pub use redacted_params::RedactedParams;
pub use store_trait::Store;
pub use submission::{IdempotencyKey, Ineligible, SendEligibility, Submission, SubmitOutcome};
pub use url::{StoreUrl, StoreUrlError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use versions::SCHEMA;
