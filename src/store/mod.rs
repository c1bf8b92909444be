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

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod check;
mod conversations;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod decisions;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod expiry;
mod handoff;
mod journal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod link_rows;
mod media;
mod new_inbound;
mod operator;
mod outbox;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod owner;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod packing;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod states;
mod submission;
mod url;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod versions;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use conversations::{
    ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource, ConsentState,
    Conversation, Conversations, Dialogue, EarlierMessage, OpenWindow, WINDOW,
};
pub use error::{StoreError, StoreErrorKind};
pub use handoff::{HandoffChange, HandoffRow, Handoffs};
pub use journal::{
    AcceptOutcome, BacklogMessage, Claim, ClaimedBacklog, Completion, CrashPolicy, DeadMessage,
    DeadReason, DialogueChange, FailOutcome, Journal, QueuedMessage, RedactedParams, ReplyDecision,
    ReplyPath, ReplyQueue, SavedResponse, TurnStatus,
};
pub use media::{
    CHUNK_BYTES, FileHash, LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkSigningKey, LinkSource,
    LinkTarget, LinkTokenHash, MediaLinks, NewLink, ResolvedLink, TwilioMedia,
};
#[cfg(feature = "rules")]
pub(crate) use new_inbound::ConsentEffect;
pub use new_inbound::{ConsentKeyword, NewInbound};
pub use operator::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, Operator, OutboundDetails, OutboundRow,
    PurgeReport, Retention,
};
pub use outbox::{
    NewOutbound, OutboundMessage, OutboundState, Outbox, OutboxStats, ScheduledMessage,
    SendOutcome, StatusEffect, StatusEvent,
};
pub use submission::{IdempotencyKey, Ineligible, SendEligibility, Submission, SubmitOutcome};
pub use url::{StoreUrl, StoreUrlError};

/// Number of the newest schema, the same for SQLite and PostgreSQL.
pub const SCHEMA: usize = 1;

/// Default time limit of one operation.
// Half a second less than the two seconds within which a webhook gets its 503 when the store is unavailable.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// Lowest schema number whose programs may work on the newest schema. The store records it, so that older programs can
/// read it.
///
/// A migration that only adds an index or a nullable column leaves it unchanged. A migration without which older
/// programs would write incomplete rows sets it to its own number.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const MIN_READER: usize = 1;

/// Future that a store's methods return.
///
/// ```
/// use replyhook::store::StoreFuture;
///
/// struct NullStore;
///
/// impl NullStore {
///     /// Has the signature of `Store::check`.
///     fn check(&self) -> StoreFuture<'_, ()> {
///         Box::pin(async move { Ok(()) })
///     }
/// }
/// # let _ = NullStore.check();
/// ```
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Durable storage. [`SqliteStore`](sqlite::SqliteStore) is a file for one server;
/// [`PostgresStore`](postgres::PostgresStore) is shared by several servers.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, Store, StoreErrorKind, sqlite::SqliteStore};
///
/// let store = SqliteStore::memory();
/// assert_eq!(store.check().await.unwrap_err().kind(), StoreErrorKind::NotOpen);
/// store.open(Access::Owner).await?;
/// store.check().await?;
/// store.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub trait Store:
    Journal + Conversations + Handoffs + Outbox + MediaLinks + Operator + 'static
{
    /// Connects to the store and prepares its schema as `access` allows. Every other method fails before that.
    ///
    /// # Errors
    /// - [`StoreErrorKind::Owned`]: another running server owns the store.
    /// - [`StoreErrorKind::Schema`]: another version of replyhook made the schema, and this one cannot use it.
    /// - [`StoreErrorKind::Corrupt`]: the store is damaged, or belongs to another program.
    /// - [`StoreErrorKind::Unavailable`]: the store cannot be reached or opened.
    fn open(&self, access: Access) -> StoreFuture<'_, ()>;

    /// Tests the store: writes everything that accepting and replying to a message writes, rolls that back, and
    /// commits.
    ///
    /// # Errors
    /// The error that accepting a message would return now.
    fn check(&self) -> StoreFuture<'_, ()>;

    /// Completes when the store cannot save anything until the process is restarted, because its disk has failed.
    /// Never completes for a store that recovers by itself.
    fn failed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Returns whether other servers use this store, as far as this process knows. A server that crashed counts for a
    /// day. Always false if one server owns the store.
    fn has_peers(&self) -> bool {
        false
    }

    /// Releases everything that this process has claimed, so that another process can claim it immediately.
    ///
    /// # Errors
    /// [`StoreError`]; the claims then end with the lease (PostgreSQL) or when a server opens the file again (SQLite).
    fn close(&self) -> StoreFuture<'_, ()>;

    /// Time limit of one operation, after which the store counts as unavailable. By default 1.5 s, so that Twilio gets
    /// its 503 within two seconds. Measured in real time, because advancing a test's clock does not make a store slow.
    fn operation_timeout(&self) -> Duration {
        OPERATION_TIMEOUT
    }
}

/// Purpose for which a store is opened. See [`Store`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Handle messages: the store is owned if only one server can own it, and its schema is updated.
    Owner,
    /// Run an operator's command alongside a server: the schema must be up to date.
    Operator,
    /// Update the schema and do nothing else.
    Migrate,
}
