//! Files: those that messages bring, and those that replies take along.
//!
//! A message's files lie at Twilio. They are fetched when a handler asks ([`attached`]), saved beside it where `media.save_dir`
//! names a folder ([`keeping`], [`saving`]), and never called by the address that the message gives.
//!
//! A reply's own files are put into the store ([`publishing`]) under links that nobody can guess ([`token`]), which every
//! machine on that store can follow ([`linked`]), so many at a time ([`limits`]). So is the place of a file that came, which is
//! fetched for each reader ([`fetched`]).

mod attached;
mod fetched;
mod keeping;
mod limits;
mod linked;
mod publishing;
mod saving;
mod token;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use fetched::FetchedFile;
pub(crate) use limits::{LinkLimits, LinkPermit};
pub(crate) use linked::{Followed, NotFollowed, OurFile};
pub(crate) use saving::Folder;
pub use saving::saved_files;

use crate::address::Channel;
use crate::clock::Clock;
use crate::handler::{Attachments, Files, HandlerError, Keeping};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::{PublicUrl, TokenSlot};
use crate::store::Store;
use crate::twilio::media::{MediaClient, MediaHosts};
use crate::twilio::{Client, Credentials};

use attached::Attached;

/// Messages whose files are saved at once.
const KEPT_AT_ONCE: usize = 8;
/// Replies' own files that are read and put into the store at once; each may take 16 MiB of memory. Further ones wait.
const PUBLISHED_AT_ONCE: usize = 2;

/// Where an account's files are asked for, and as whom.
pub(crate) trait Accounts: Send + Sync {
    /// `None` for an account that is not ours to call for.
    fn of(&self, account: AccountSid, slot: TokenSlot) -> Option<(&Client, Credentials)>;
    /// Where the account's Twilio, and the rest of the world, reaches us.
    fn public_url(&self, account: AccountSid) -> PublicUrl;
}

/// What has to do with files.
#[derive(Clone)]
pub(crate) struct Media(Arc<Inner>);

struct Inner {
    accounts: Arc<dyn Accounts>,
    client: MediaClient,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keep: Option<Keep>,
    limits: LinkLimits,
    tasks: TaskTracker,
    keeping: Semaphore,
    publishing: Semaphore,
}

/// What happens to files that come, without a handler that asks for them.
pub(crate) struct Keep {
    pub(crate) folder: Folder,
    /// Whether a file is deleted at Twilio once it is saved.
    pub(crate) then_delete: bool,
}

impl Media {
    pub(crate) fn new(
        accounts: Arc<dyn Accounts>,
        hosts: MediaHosts,
        keep: Option<Keep>,
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
            keep,
            limits,
            tasks,
            keeping: Semaphore::new(KEPT_AT_ONCE),
            publishing: Semaphore::new(PUBLISHED_AT_ONCE),
        }))
    }
}

impl Files for Media {
    fn attachments(&self, message: &InboundMessage, slot: TokenSlot) -> Arc<dyn Attachments> {
        Arc::new(Attached::of(self.0.clone(), message, slot))
    }

    fn keep(&self, message: &InboundMessage, slot: TokenSlot) -> Keeping {
        keeping::begin(&self.0, message, slot)
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
