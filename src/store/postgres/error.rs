//! What PostgreSQL's errors mean here.

use sqlx::Error;

use crate::store::{StoreError, StoreErrorKind, rows};

/// Why a step was not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Something changed underneath: from the beginning, it is likely to go well.
    Again,
    /// For good.
    Store(StoreError),
    /// What the database or the way to it says.
    Sql(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        // Serialization failure, deadlock.
        if matches!(code(&error).as_deref(), Some("40001" | "40P01")) {
            return Self::Again;
        }
        Self::Sql(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    /// Whether the connection, and with it probably every other one, is of no use any more.
    pub(super) fn is_lost_connection(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        match code(error).as_deref() {
            // A standby after a failover takes no writes: another connection may lead to the new primary.
            Some(code) => is_unreachable(code) || code == "25006",
            None => matches!(
                error,
                Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed
            ),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Again => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "others changed the same rows, again and again",
            ),
            Trouble::Store(error) => error,
            Trouble::Sql(error) => store_error(&error),
        }
    }
}

fn code(error: &Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Codes of a server that is going, gone, starting or full.
fn is_unreachable(code: &str) -> bool {
    code.starts_with("08")
        || matches!(
            code,
            "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03"
        )
}

/// Takes an error of sqlx's for one of the store's. A row's values may stand in the database's words, so that only its code
/// is kept; where it is about the way to the database, there is no row yet, and its words help.
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
                "no connection could be had in time",
            ),
            Error::PoolClosed => StoreError::new(StoreErrorKind::NotOpen),
            Error::Configuration(_) => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "its address cannot be read: write postgres://USER:PASSWORD@HOST/NAME",
            ),
            Error::Protocol(_) => StoreError::with_source(
                StoreErrorKind::Unavailable,
                "what answers does not speak as PostgreSQL does",
            ),
            Error::ColumnDecode { .. } | Error::Decode(_) => rows::unreadable(),
            Error::RowNotFound => {
                StoreError::with_source(StoreErrorKind::Internal, "a row is gone")
            }
            _ => StoreError::new(StoreErrorKind::Internal),
        };
    };
    let kind = match code.as_str() {
        code if is_unreachable(code) => StoreErrorKind::Unavailable,
        "53100" => StoreErrorKind::Full,
        "XX001" | "XX002" => StoreErrorKind::Corrupt,
        "3F000" | "42P01" | "42703" => StoreErrorKind::Schema,
        // Read-only, may not, cancelled, locked, out of memory, an I/O error, no such database.
        "25006" | "42501" | "57014" | "55P03" | "53200" | "58030" | "3D000" => {
            StoreErrorKind::Unavailable
        }
        code if code.starts_with("28") => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Internal,
    };
    let about_the_way = ["08", "28", "3D", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class));
    let words = error
        .as_database_error()
        .filter(|_| about_the_way)
        .map(|error| format!(": {}", error.message()));
    StoreError::with_source(
        kind,
        format!("PostgreSQL says {code}{}", words.unwrap_or_default()),
    )
}
