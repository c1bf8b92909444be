//! The trait that both stores implement.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::access::Access;
use super::conversations::Conversations;
use super::events::Events;
use super::future::StoreFuture;
use super::handoff::Handoffs;
use super::journal::Journal;
use super::media::MediaLinks;
use super::operator::Operator;
use super::outbox::Outbox;
use super::users::Users;

/// Default time limit of one operation.
// Half a second less than the two seconds within which a webhook gets its 503 when the store is unavailable.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// Durable storage. [`SqliteStore`](super::sqlite::SqliteStore) is a file for one server;
/// [`PostgresStore`](super::postgres::PostgresStore) is shared by several servers.
///
/// Each method is one transaction and is named after its use. The current time is an argument. No transaction stays open
/// while a handler or an HTTP call runs. Instead a process *claims* a message, and each later write checks the claim. A
/// process that has lost its claim cannot write.
pub trait Store:
    Journal + Conversations + Handoffs + Outbox + MediaLinks + Operator + Users + Events + 'static
{
    /// Connects to the store and prepares its schema as `access` allows. Every other method fails before that.
    ///
    /// # Errors
    /// - [`Owned`](super::error::StoreErrorKind::Owned): another running server owns the store.
    /// - [`Schema`](super::error::StoreErrorKind::Schema): another version of replyhook made the schema, and this one
    ///   cannot use it.
    /// - [`Corrupt`](super::error::StoreErrorKind::Corrupt): the store is damaged, or belongs to another program.
    /// - [`Unavailable`](super::error::StoreErrorKind::Unavailable): the store cannot be reached or opened.
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
    /// [`StoreError`](super::error::StoreError); the claims then end with the lease (PostgreSQL) or when a server opens the
    /// file again (SQLite).
    fn close(&self) -> StoreFuture<'_, ()>;

    /// Time limit of one operation, after which the store counts as unavailable. By default 1.5 s, so that Twilio gets
    /// its 503 within two seconds. Measured in real time, because advancing a test's clock does not make a store slow.
    fn operation_timeout(&self) -> Duration {
        OPERATION_TIMEOUT
    }
}
