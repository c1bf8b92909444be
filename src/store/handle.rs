//! Handle of a store, for programs.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::access::Access;
use super::conversations::{ConsentRecord, ConsentScope, OpenWindow};
use super::error::StoreError;
use super::store_trait::Store;
use crate::address::Address;

/// An SQLite or PostgreSQL store. Clones share its connections.
///
/// [`App::store`](crate::App::store) returns the store of an app, and
/// [`store_from_url`](crate::store_from_url) creates one. Until the store is open, every operation fails with
/// [`NotOpen`](super::error::StoreErrorKind::NotOpen).
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, StoreErrorKind, StoreHandle, sqlite::SqliteStore};
/// use replyhook::{Clock, SystemClock};
///
/// let store = StoreHandle::from(SqliteStore::memory());
/// let (sender, user) = ("whatsapp:+15550002222".into(), "whatsapp:+15550001111".into());
/// let now = SystemClock.now();
/// let unopened = store.window(&sender, &user, now).await.unwrap_err();
/// assert_eq!(unopened.kind(), StoreErrorKind::NotOpen);
/// store.open(Access::Owner).await?;
/// assert!(store.window(&sender, &user, now).await?.is_none(), "the user has never written");
/// assert_eq!(store.end_handoff(None, &user, now).await?, 0, "this user was not handed off");
/// store.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct StoreHandle(pub(crate) Arc<dyn Store>);

impl StoreHandle {
    /// Connects to the store and prepares its schema as `access` allows.
    ///
    /// The [`Worker`](crate::Worker) of an app opens the app's store.
    ///
    /// # Errors
    /// - [`Owned`](super::error::StoreErrorKind::Owned): another running server owns the store.
    /// - [`Schema`](super::error::StoreErrorKind::Schema): another version of replyhook made the schema, and this one
    ///   cannot use it.
    /// - [`Corrupt`](super::error::StoreErrorKind::Corrupt): the store is damaged, or belongs to another program.
    /// - [`Unavailable`](super::error::StoreErrorKind::Unavailable): the store cannot be reached or opened.
    pub async fn open(&self, access: Access) -> Result<(), StoreError> {
        self.0.open(access).await
    }

    /// Releases everything that this process has claimed, so that another process can claim it immediately.
    ///
    /// # Errors
    /// [`StoreError`]; the claims then end with the lease (PostgreSQL) or when a server opens the file again (SQLite).
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }

    /// Returns the customer service window of a user and a sender, if it is open. On channels other than WhatsApp it is
    /// always open.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn window(
        &self,
        sender: &Address,
        user: &Address,
        now: Timestamp,
    ) -> Result<Option<OpenWindow>, StoreError> {
        let conversation = self
            .0
            .conversation(&sender.normalized(), &user.normalized())
            .await?;
        let last_inbound = conversation.and_then(|conversation| conversation.last_inbound);
        Ok(OpenWindow::of(user, last_inbound, now))
    }

    /// Changes a consent, and adds the record to the ledger.
    ///
    /// # Errors
    /// [`StoreError`] if the record was not saved. After
    /// [`Unavailable`](super::error::StoreErrorKind::Unavailable) it may still be saved.
    pub async fn record_consent(&self, mut record: ConsentRecord) -> Result<(), StoreError> {
        record.user = record.user.normalized();
        if let ConsentScope::Sender(sender) = &mut record.scope {
            *sender = sender.normalized();
        }
        self.0.record_consent(record).await
    }

    /// Ends the handoffs of a user, with one sender or with all senders, and returns the number of ended handoffs.
    ///
    /// # Errors
    /// [`StoreError`] if the handoffs were not ended. After
    /// [`Unavailable`](super::error::StoreErrorKind::Unavailable) they may still end.
    pub async fn end_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let sender = sender.map(Address::normalized);
        self.0
            .end_handoff(sender.as_ref(), &user.normalized(), now)
            .await
    }
}

// For the commands, tests and benchmarks of this package.
#[cfg(feature = "internals")]
#[doc(hidden)]
impl std::ops::Deref for StoreHandle {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle").finish_non_exhaustive()
    }
}
