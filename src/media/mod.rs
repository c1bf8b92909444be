//! Media: the files of inbound messages, and the files of replies.
//!
//! A message's files are stored at Twilio. They are fetched when a handler asks for them ([`attachment`]), and saved
//! concurrently with the handler if `media.save_dir` is set ([`auto_save`], [`storage`]). The `MediaUrl` of a message
//! is never called.
//!
//! A reply's files are put into the store ([`publish`]) and served under links that cannot be guessed ([`token`]).
//! Every server on the store can serve a link ([`links`]), within limits ([`limits`]). A link can also lead to a
//! message's file, which is fetched from Twilio for each request ([`fetched`]).

mod attachment;
mod auto_save;
mod fetched;
mod limits;
mod links;
mod publish;
mod storage;
mod token;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use fetched::FetchedFile;
pub(crate) use limits::{LinkLimits, LinkPermit};
pub(crate) use links::{LinkContent, LinkError, StoredFile};
pub(crate) use storage::Folder;
pub use storage::saved_files;

use crate::address::Channel;
use crate::clock::Clock;
use crate::handler::{Attachments, Files, HandlerError, SaveGuard};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::Store;
use crate::twilio::media::{MediaClient, MediaHosts};
use crate::twilio::{Client, Credentials};

use attachment::MessageAttachments;

/// Maximum number of messages whose files are saved concurrently. Files of one message are saved one after the other.
const MAX_CONCURRENT_SAVES: usize = 8;
/// Maximum number of reply files that are put into the store concurrently. Further ones wait.
// Each may take 16 MiB of memory.
const MAX_CONCURRENT_PUBLISHES: usize = 2;

/// The REST client, the credentials and the public URL of each account.
// A trait, so that this module does not depend on the outbox worker, which has the routes and credentials.
pub(crate) trait Accounts: Send + Sync {
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
pub(crate) struct MediaService(Arc<Inner>);

struct Inner {
    accounts: Arc<dyn Accounts>,
    client: MediaClient,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    auto_save: Option<AutoSave>,
    limits: LinkLimits,
    tasks: TaskTracker,
    save_permits: Semaphore,
    publish_permits: Semaphore,
}

/// Saving of every message's files, without code in the handler.
pub(crate) struct AutoSave {
    pub(crate) folder: Folder,
    /// Delete a file at Twilio once it is saved and its message is handled.
    pub(crate) then_delete: bool,
}

impl MediaService {
    pub(crate) fn new(
        accounts: Arc<dyn Accounts>,
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

impl Files for MediaService {
    fn attachments(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Arc<dyn Attachments> {
        Arc::new(MessageAttachments::new(self.0.clone(), message, auth_token))
    }

    fn auto_save(&self, message: &InboundMessage, auth_token: AuthTokenKind) -> SaveGuard {
        auto_save::start_saving(&self.0, message, auth_token)
    }

    fn publish<'a>(
        &'a self,
        reply: Reply,
        channel: &'a Channel,
        to: (AccountSid, MessageSid),
    ) -> BoxFuture<'a, Result<Reply, HandlerError>> {
        Box::pin(self.0.publish(reply, channel, to))
    }
}
