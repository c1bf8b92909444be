//! Errors of the store.

use std::fmt;

use replyhook_core::BoxError;

/// Failed store operation. After [`StoreErrorKind::Unavailable`] the operation may still have taken effect.
///
/// ```
/// use replyhook::store::{StoreError, StoreErrorKind};
///
/// /// Returns true if the operation may succeed without a restart of the server.
/// fn is_temporary(error: &StoreError) -> bool {
///     matches!(error.kind(), StoreErrorKind::Busy | StoreErrorKind::Unavailable)
/// }
/// # let _ = is_temporary;
/// ```
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<BoxError>,
}

/// Category of a [`StoreError`]. See [`StoreError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The queue of pending writes is full.
    Busy,
    /// The store cannot be reached, is locked, or takes too long.
    Unavailable,
    /// The disk has no space left.
    Full,
    /// The disk has failed. Nothing more is saved until the process is restarted.
    Disk,
    /// The store is damaged, or belongs to another program.
    Corrupt,
    /// Another version of replyhook made the schema.
    Schema,
    /// Another running server owns the store.
    Owned,
    /// The store is not open.
    NotOpen,
    /// An unexpected failure of replyhook or of the database.
    Internal,
}

impl StoreError {
    /// Creates an error without a cause.
    pub(crate) fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Creates an error with a cause. The text of the cause must not contain message content, because it is logged.
    pub(crate) fn with_source(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// Returns the category.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Busy => "the store is busy: its write queue is full",
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Full => "the store is full: make room on its disk",
            StoreErrorKind::Disk => "the disk has failed: check it, then restart the server",
            StoreErrorKind::Corrupt => "the store is damaged, or belongs to another program",
            StoreErrorKind::Schema => "the store was made by another version of replyhook",
            StoreErrorKind::Owned => "another running server owns the store",
            StoreErrorKind::NotOpen => "the store is not open",
            StoreErrorKind::Internal => "the store failed",
        })?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
