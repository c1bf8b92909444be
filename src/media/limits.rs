//! Limits of `/media`: how many requests are answered at the same time, and how many files are fetched from Twilio for them.
//!
//! They are counted apart from messages, so that readers of files take no place of a message.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests at the same time. Each has at most one piece of a file in memory, 256 KiB.
const MAX_REQUESTS: usize = 96;
/// Files that are fetched from Twilio at the same time. Each takes up to 1.3 MB: what the HTTP client has read ahead, too.
const MAX_FETCHES: usize = 64;
/// How long a request waits for its place before it is refused.
const WAIT: Duration = Duration::from_secs(2);

/// The limits, and what is taken of them.
pub(crate) struct LinkLimits {
    requests: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
}

/// A request's place, held until the last byte of its answer has been handed to the connection.
#[derive(Clone)]
pub(crate) struct LinkPermit {
    _place: Arc<OwnedSemaphorePermit>,
}

/// The place of a file that is being fetched.
pub(super) type FetchPermit = OwnedSemaphorePermit;

impl LinkLimits {
    /// Creates the limits of a server that answers so many messages at the same time: files get an eighth of that at most.
    pub(crate) fn new(max_in_flight: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new((max_in_flight / 8).clamp(8, MAX_REQUESTS))),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
        }
    }

    /// Waits briefly for a request's place.
    pub(crate) async fn request(&self) -> Option<LinkPermit> {
        let place = Arc::new(place(&self.requests).await?);
        Some(LinkPermit { _place: place })
    }

    /// Waits briefly for the place of a file that is to be fetched.
    pub(super) async fn fetch(&self) -> Option<FetchPermit> {
        place(&self.fetches).await
    }
}

async fn place(of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = tokio::time::timeout(WAIT, of.clone().acquire_owned()).await;
    place.ok()?.ok()
}
