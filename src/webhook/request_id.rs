//! What a request is called in the log and in `X-Request-Id`. Made here: one that comes with a request is a stranger's.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// One request of one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId {
    boot: u32,
    number: u64,
}

/// Where they come from.
#[derive(Debug)]
pub(super) struct RequestIds {
    boot: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Counts from 1, under a number that tells this start from others.
    pub(super) fn new() -> Self {
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
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.boot, self.number)
    }
}
