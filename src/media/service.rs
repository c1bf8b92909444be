//! [`MediaService`]: the parts that its operations share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::limits::LinkLimits;
use super::storage::Folder;
use crate::clock::Clock;
use crate::sid::AccountSid;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::Store;
use crate::twilio::media::{MediaClient, MediaHosts};
use crate::twilio::{Client, Credentials};

/// Maximum number of messages whose files are saved concurrently. Files of one message are saved one after the other.
const MAX_CONCURRENT_SAVES: usize = 8;
/// Maximum number of reply files that are put into the store concurrently. Further ones wait.
// Each may take 16 MiB of memory.
const MAX_CONCURRENT_PUBLISHES: usize = 2;

/// The REST client, the credentials and the public URL of each account.
// A trait, so that this module does not depend on the outbox worker, which has the routes and credentials.
pub(crate) trait MediaAccounts: Send + Sync {
    /// Returns the client and the credentials of an account; `None` for an account that is not configured.
    fn rest_client(
        &self,
        account: AccountSid,
        auth_token: AuthTokenKind,
    ) -> Option<(&Client, Credentials)>;
    /// Returns the URL under which Twilio reaches this server for the account.
    fn public_url(&self, account: AccountSid) -> PublicUrl;
}

/// The media component. A clone shares its limits and its tasks.
#[derive(Clone)]
pub(crate) struct MediaService(pub(super) Arc<Inner>);

/// Parts of the component.
pub(super) struct Inner {
    pub(super) accounts: Arc<dyn MediaAccounts>,
    pub(super) client: MediaClient,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auto_save: Option<AutoSave>,
    pub(super) limits: LinkLimits,
    pub(super) tasks: TaskTracker,
    pub(super) save_permits: Semaphore,
    pub(super) publish_permits: Semaphore,
}

/// Saving of every message's files, without code in the handler.
pub(crate) struct AutoSave {
    pub(crate) folder: Folder,
    /// Delete a file at Twilio once it is saved and its message is handled.
    pub(crate) then_delete: bool,
}

impl MediaService {
    pub(crate) fn new(
        accounts: Arc<dyn MediaAccounts>,
        hosts: MediaHosts,
        auto_save: Option<AutoSave>,
        limits: LinkLimits,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner {
            accounts,
            client: MediaClient::new(hosts, clock.clone()),
            store,
            clock,
            auto_save,
            limits,
            tasks,
            save_permits: Semaphore::new(MAX_CONCURRENT_SAVES),
            publish_permits: Semaphore::new(MAX_CONCURRENT_PUBLISHES),
        }))
    }
}
