//! Concurrency limits of `/media`: of requests, and of fetches from Twilio for them.
//!
//! They are separate from the limit on messages, so that clients of links cannot use up the capacity for messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of concurrent requests.
// Each has at most one chunk of a file in memory, 256 KiB: 24 MiB together.
const MAX_REQUESTS: usize = 96;
/// Maximum number of concurrent fetches from Twilio.
// Each takes up to 1.3 MB, with what the HTTP client reads ahead: 83 MB together.
const MAX_FETCHES: usize = 64;
/// Time that a request waits for a permit before it is rejected with 503.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The two limits.
pub(crate) struct LinkLimits {
    requests: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
}

/// A request's permit, held until the last byte of the response has been written to the connection.
// Cloned into every frame of the body, so that the permit lives until the last frame is dropped.
#[derive(Clone)]
pub(crate) struct LinkPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The permit of one fetch from Twilio.
pub(super) type FetchPermit = OwnedSemaphorePermit;

impl LinkLimits {
    /// Creates the limits of a server with this limit on webhook requests.
    ///
    /// Links get an eighth of it, but at least 8 and at most 96 requests.
    pub(crate) fn new(max_in_flight: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new((max_in_flight / 8).clamp(8, MAX_REQUESTS))),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
        }
    }

    /// Acquires the permit of a request, waiting up to 2 s; `None` if the limit stays reached.
    pub(crate) async fn acquire_request(&self) -> Option<LinkPermit> {
        let permit = Arc::new(acquire(&self.requests).await?);
        Some(LinkPermit { _permit: permit })
    }

    /// Acquires the permit of a fetch, waiting up to 2 s; `None` if the limit stays reached.
    pub(super) async fn acquire_fetch(&self) -> Option<FetchPermit> {
        acquire(&self.fetches).await
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let permit = tokio::time::timeout(PERMIT_TIMEOUT, semaphore.clone().acquire_owned()).await;
    // The inner error is for a closed semaphore, and these are never closed.
    permit.ok()?.ok()
}
