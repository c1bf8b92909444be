//! [`Reconciler`], and what its comparisons share.

use std::fmt;
use std::sync::Arc;

use crate::consent::ConsentRules;
use crate::sid::AccountSid;
use crate::store::Store;

/// Rows per query of the store.
pub(super) const ROWS_PER_QUERY: u32 = 500;

/// Compares Twilio's message list with the journal and the outbox.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::Timestamp;
/// use replyhook::reconcile::Reconciler;
/// use replyhook::store::{Access, StoreHandle, sqlite::SqliteStore};
///
/// let store = StoreHandle::from(SqliteStore::memory());
/// store.open(Access::Owner).await?;
/// let reconciler = Reconciler::new(store, &["STOP"], &["START"]);
/// let account = "AC00000000000000000000000000000001".parse()?;
/// // Nothing is missing from an empty list; `list_messages` reads a real one from Twilio.
/// let inbound = reconciler.missing(account, &[], Timestamp::UNIX_EPOCH).await?;
/// assert!(inbound.messages.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Reconciler {
    pub(super) store: Arc<dyn Store>,
    pub(super) rules: Arc<ConsentRules>,
}

pub(super) fn same_account(one: AccountSid, other: AccountSid) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}
