//! Conversion of SQLite's errors.

use rusqlite::ErrorCode;

use crate::store::error::{StoreError, StoreErrorKind};

/// Converts an error of SQLite into a store error with the same text.
pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
    // The text may be logged: SQLite names tables and columns in it, but never values.
    let kind = match error.sqlite_error_code() {
        // Errors that may go away without a change to the database.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory,
        ) => StoreErrorKind::Unavailable,
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Internal,
    };
    StoreError::with_source(kind, error)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        store_error(error)
    }
}
