//! What is kept, so that nothing acknowledged is lost and nobody is answered twice: [`Store`] is a [`Journal`] of what
//! came, the [`Conversations`] it belongs to, with their [`HandOvers`], and an [`Outbox`] of what goes out by REST, with
//! the [`MediaLinks`] by which files are fetched.
//!
//! One method is one transaction, named after its use. The time is an argument. No transaction is held while a handler
//! or an HTTP call runs: a message is *claimed* by this process, and every later write is fenced by the claim, so that
//! who lost it cannot write.
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
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod expiry;
mod handover;
mod journal;
mod media;
mod operator;
mod outbox;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
mod submission;
mod url;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use conversations::{
    ConsentAction, ConsentEntry, ConsentHow, ConsentRecord, ConsentScope, ConsentState,
    Conversation, Conversations, Dialogue, EarlierMessage, OpenWindow, WINDOW,
};
pub use error::{StoreError, StoreErrorKind};
pub use handover::{HandOverChange, HandOvers};
pub use journal::{
    Acceptance, Answered, Arrival, ArrivalConsent, Behind, Choice, Claim, CrashPolicy, DeadMessage,
    DeadReason, Decision, DialogueChange, Ending, Journal, ReplyQueue, Taken, TakenParams, TakenUp,
    Turn,
};
pub use media::{
    FileAtTwilio, FileHash, LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkKey, LinkSigningKey, Linked,
    LinkedFile, MediaLinks, NewFile, NewLink, PIECE_BYTES,
};
pub use operator::{
    Expired, MessageFilter, MessageRow, OpenMessages, Operator, OutgoingRow, Purged, ReplyRow,
    Retention,
};
pub use outbox::{
    NewReply, News, NewsEffect, OutboundMessage, Outbox, OutboxState, ReplyState, ScheduledMessage,
    Settlement,
};
pub use submission::{Refusal, SendKey, Standing, Submission, Submitted};
pub use url::{StoreUrl, StoreUrlError};

/// The number of the newest schema, the same in every kind of store.
pub const SCHEMA: usize = 10;

/// How long a step may take, in a store that can be away.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The oldest schema number whose programs may work on the newest schema: it is kept in the store, so that they know. A
/// migration that only adds what such a program need not know, as an index or a column that may be empty, leaves it. One that wants something of
/// whoever writes makes it its own number: 2 (a message names the one before), 3 and 4 (keys and files are to be deleted
/// with what they belong to), 5 (who is handed over is not to be answered), and 9 (a link without a tag leads nowhere) did.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const MIN_READER: usize = 9;

/// What a store's methods return.
///
/// ```
/// use replyhook::store::Outcome;
///
/// struct Nowhere;
///
/// impl Nowhere {
///     /// As `Store::check` of a store of yours.
///     fn check(&self) -> Outcome<'_, ()> {
///         Box::pin(async move { Ok(()) })
///     }
/// }
/// # let _ = Nowhere.check();
/// ```
pub type Outcome<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Everything that is kept. [`SqliteStore`](sqlite::SqliteStore) is one machine's, in a file;
/// [`PostgresStore`](postgres::PostgresStore) is shared by several.
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
    Journal + Conversations + HandOvers + Outbox + MediaLinks + Operator + 'static
{
    /// Makes it usable: connects, brings the schema up to date, and (for [`Access::Owner`]) takes possession. Before
    /// that every other method fails.
    ///
    /// # Errors
    /// [`StoreErrorKind::Owned`] when another live server owns it, [`StoreErrorKind::Schema`] when a newer version made
    /// it, [`StoreErrorKind::Corrupt`], [`StoreErrorKind::Unavailable`].
    fn open(&self, access: Access) -> Outcome<'_, ()>;

    /// Writes what accepting and answering a message writes, and takes it back; commits, durably.
    ///
    /// # Errors
    /// The error that a message would meet now.
    fn check(&self) -> Outcome<'_, ()>;

    /// Says whether this process has told something that it has yet to [enter](Journal::enter), for those who share the
    /// store. Where nobody does, there is nobody to tell.
    fn owes(&self, owes: bool) {
        let _ = owes;
    }

    /// Whether everybody else who shares the store has shown, within so long a time back from now, that nothing told is
    /// left to be entered. Where nobody does, it is so.
    ///
    /// # Errors
    /// [`StoreError`]; it is not known then.
    fn others_entered(&self, within: Duration) -> Outcome<'_, bool> {
        let _ = within;
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Gives up everything that this process has claimed, so that another need not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; claims then run out by themselves.
    fn close(&self) -> Outcome<'_, ()>;

    /// How long one step may take before the store counts as away, and whoever waits is told so: 1.5 s, so that Twilio has
    /// its 503 within two. By real time, since a clock that is moved on makes no store slow.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// Who opens a store.
///
/// Given when opening: see [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A server, which handles messages.
    Owner,
    /// An operator's command beside a running server.
    Operator,
    /// Brings the schema up to date, and nothing else.
    Migrate,
}
