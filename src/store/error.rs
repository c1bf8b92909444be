//! Why the store did not do it.

use std::fmt;

use crate::error::BoxError;

/// A step that the store did not take, or of which it does not know whether it took it.
///
/// ```
/// use replyhook::store::{StoreError, StoreErrorKind};
///
/// /// What a store of your own says when its database does not answer.
/// fn away(error: std::io::Error) -> StoreError {
///     StoreError::with_source(StoreErrorKind::Unavailable, error)
/// }
/// let error = away(std::io::ErrorKind::TimedOut.into());
/// assert_eq!(error.kind(), StoreErrorKind::Unavailable);
/// assert_eq!(error.to_string(), "the store is not available: timed out");
/// ```
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<BoxError>,
}

/// What a [`StoreError`] is about.
///
/// Of an error: see [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// More waits to be written than is allowed to.
    Busy,
    /// It cannot be reached, is locked, or takes too long.
    Unavailable,
    /// There is no room for more.
    Full,
    /// It is damaged, or no store of ours.
    Corrupt,
    /// Another version made its schema.
    Schema,
    /// Another live server owns it.
    Owned,
    /// It was never opened.
    NotOpen,
    /// A fault of ours, or of the database.
    Internal,
}

impl StoreError {
    /// An error without a cause.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error with what lies under it; its text must hold no content.
    pub fn with_source(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What it is about.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Busy => "the store is busy: too much waits to be written",
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Full => "the store is full: make room on its disk",
            StoreErrorKind::Corrupt => "the store is damaged, or not replyhook's",
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
