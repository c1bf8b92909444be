//! Files: those that messages bring, and those that replies take along.
//!
//! A message's files lie at Twilio. They are fetched when a handler asks ([`attached`]), saved beside it where `media.save`
//! names a folder ([`keeping`], [`saving`]), and never called by the address that the message gives.

mod attached;
mod keeping;
mod saving;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use saving::Folder;
pub use saving::saved_files;

use crate::clock::Clock;
use crate::handler::{Attachments, Files, Keeping};
use crate::message::InboundMessage;
use crate::sid::AccountSid;
use crate::signature::TokenSlot;
use crate::twilio::media::{MediaClient, MediaHosts};
use crate::twilio::{Client, Credentials};

use attached::Attached;

/// Messages whose files are saved at once.
const KEPT_AT_ONCE: usize = 8;

/// Where an account's files are asked for, and as whom.
pub(crate) trait Accounts: Send + Sync {
    /// `None` for an account that is not ours to call for.
    fn of(&self, account: AccountSid, slot: TokenSlot) -> Option<(&Client, Credentials)>;
}

/// What has to do with files.
#[derive(Clone)]
pub(crate) struct Media(Arc<Inner>);

struct Inner {
    accounts: Arc<dyn Accounts>,
    client: MediaClient,
    keep: Option<Keep>,
    tasks: TaskTracker,
    keeping: Semaphore,
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
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner {
            accounts,
            client: MediaClient::new(hosts, clock),
            keep,
            tasks,
            keeping: Semaphore::new(KEPT_AT_ONCE),
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
}
