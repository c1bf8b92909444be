//! The id of a request, in the log and in `X-Request-Id`.
//!
//! It is always generated here. An `X-Request-Id` of the request is ignored, because it is untrusted.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of one request: a random number of this start of the server, and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId {
    boot: u32,
    number: u64,
}

/// The generator of request ids.
#[derive(Debug)]
pub(super) struct RequestIds {
    boot: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Creates a generator that counts from 1.
    pub(super) fn new() -> Self {
        // The seed of `RandomState` is enough: the number only tells starts and servers apart in a log.
        let random = RandomState::new().build_hasher().finish();
        let boot = u32::try_from(random >> 32).unwrap_or_default();
        Self {
            boot,
            next: AtomicU64::new(1),
        }
    }

    pub(super) fn next(&self) -> RequestId {
        RequestId {
            boot: self.boot,
            // Relaxed suffices: each number is given once, and nothing else is ordered by it.
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.boot, self.number)
    }
}
