//! Limits of a listener and its connections.

use std::time::Duration;

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    /// From the first byte of a request's head to its last.
    pub(crate) header_timeout: Duration,
    /// From accepting the connection to its first request, and from one request to the next.
    pub(crate) idle_timeout: Duration,
    /// For a stalled write: how long the peer may accept no byte of a response.
    pub(crate) write_timeout: Duration,
    /// Maximum number of header fields.
    pub(crate) headers: usize,
    pub(crate) head_bytes: usize,
    /// Budget for the bytes of all unverified requests together. The first 8 KiB of each are free.
    pub(crate) unverified_bytes: usize,
    /// Requests need a signature. A rejected request closes its connection, and unverified connections can be evicted.
    pub(crate) requires_signatures: bool,
}

impl ConnectionLimits {
    /// Returns the limits of a private listener, whose clients are trusted and sign nothing.
    pub(crate) fn private(self, connections: usize) -> Self {
        Self {
            connections,
            requires_signatures: false,
            ..self
        }
    }
}
