//! Classification of errors from PostgreSQL and sqlx.

use sqlx::Error;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::packing;

/// Error of the statements of a call.
#[derive(Debug)]
pub(in crate::store) enum CallError {
    /// A concurrent transaction changed the same rows. The call is likely to succeed when it is run again from the
    /// beginning.
    Conflict,
    /// A final error.
    Store(StoreError),
    /// An error of the database or of the connection to it.
    Sql(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        // 40001: serialization failure. 40P01: deadlock. PostgreSQL has rolled back, so nothing is done twice.
        if matches!(code(&error).as_deref(), Some("40001" | "40P01")) {
            return Self::Conflict;
        }
        Self::Sql(error)
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl CallError {
    /// Returns true if the connection, and probably every other one, can no longer be used.
    pub(super) fn is_lost_connection(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        match code(error).as_deref() {
            // 25006: read-only transaction. After a failover this server is a standby; a new connection may
            // reach the new primary.
            Some(code) => is_unreachable(code) || code == "25006",
            None => matches!(
                error,
                Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed
            ),
        }
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Conflict => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "other transactions changed the same rows at every attempt",
            ),
            CallError::Store(error) => error,
            CallError::Sql(error) => store_error(&error),
        }
    }
}

fn code(error: &Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Returns true if a code is from a server that is stopping, stopped, starting or has no free connection.
fn is_unreachable(code: &str) -> bool {
    // Class 08: connection exceptions. 57P01, 57P02: shutdown. 57P03: starting. 57P05: idle session timeout. 53300: too
    // many connections. 25P03: idle in transaction for too long.
    code.starts_with("08")
        || matches!(
            code,
            "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03"
        )
}

/// Converts an error of sqlx.
///
/// The database's message can quote values of a row, so only its SQLSTATE code is kept. Messages about the connection
/// or the server's resources quote none and are kept.
pub(super) fn store_error(error: &Error) -> StoreError {
    let Some(code) = code(error) else {
        return match error {
            Error::Io(error) => {
                StoreError::with_source(StoreErrorKind::Unavailable, error.to_string())
            }
            Error::Tls(error) => {
                StoreError::with_source(StoreErrorKind::Unavailable, format!("TLS: {error}"))
            }
            Error::PoolTimedOut => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "no connection to the database was available in time",
            ),
            Error::PoolClosed => StoreError::new(StoreErrorKind::NotOpen),
            Error::Configuration(_) => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "invalid database URL; expected postgres://USER:PASSWORD@HOST/NAME",
            ),
            Error::Protocol(_) => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "invalid response from the database; check that PostgreSQL listens at its host and port",
            ),
            // Without the decoder's text, which can quote the value.
            Error::ColumnDecode { .. } | Error::Decode(_) => packing::unreadable(),
            Error::RowNotFound => {
                StoreError::with_source(StoreErrorKind::Internal, "a row does not exist")
            }
            _ => StoreError::new(StoreErrorKind::Internal),
        };
    };
    let kind = match code.as_str() {
        code if is_unreachable(code) => StoreErrorKind::Unavailable,
        // Disk full.
        "53100" => StoreErrorKind::Full,
        // Corrupted data, corrupted index.
        "XX001" | "XX002" => StoreErrorKind::Corrupt,
        // Invalid schema name, undefined table, undefined column.
        "3F000" | "42P01" | "42703" => StoreErrorKind::Schema,
        // Read-only transaction, insufficient privilege, canceled by the statement timeout, lock timeout, out of
        // memory, I/O error, unknown database.
        "25006" | "42501" | "57014" | "55P03" | "53200" | "58030" | "3D000" => {
            StoreErrorKind::Unavailable
        }
        // Class 28: invalid user or password.
        code if code.starts_with("28") => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Internal,
    };
    // Classes whose messages never quote a row: connection, authentication, database
    // name, resources, operator intervention.
    let names_no_row = ["08", "28", "3D", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class));
    let message = error
        .as_database_error()
        .filter(|_| names_no_row)
        .map(|error| format!(": {}", error.message()));
    StoreError::with_source(
        kind,
        format!("PostgreSQL error {code}{}", message.unwrap_or_default()),
    )
}
