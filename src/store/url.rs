//! Store URL: the value of `DATABASE_URL`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use replyhook_core::Secret;
use replyhook_core::redact::redacted_url;

/// Location of the store. Neither `Debug` nor `Display` shows a password.
///
/// ```
/// use replyhook::store::StoreUrl;
///
/// let url: StoreUrl = "postgres://bot:s3cret@db.internal/replyhook".parse()?;
/// assert_eq!(url.to_string(), "postgres://…@db.internal/replyhook");
/// assert!(matches!("sqlite::memory:".parse()?, StoreUrl::Memory));
/// # Ok::<(), replyhook::store::StoreUrlError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreUrl {
    /// SQLite file, `sqlite:PATH`.
    Sqlite(PathBuf),
    /// SQLite in memory, `sqlite::memory:`. The data is lost when the process ends.
    Memory,
    /// PostgreSQL, `postgres://…` or `postgresql://…`.
    Postgres(Secret),
}

/// Error for a text that is not a [`StoreUrl`].
///
/// ```
/// use replyhook::store::{StoreUrl, StoreUrlError};
///
/// assert_eq!("mysql://localhost".parse::<StoreUrl>().err(), Some(StoreUrlError));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write sqlite:PATH, sqlite::memory: or postgres://USER@HOST/NAME")]
pub struct StoreUrlError;

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(Secret::new(text)));
        }
        let path = text.strip_prefix("sqlite:").ok_or(StoreUrlError)?;
        // Other tools write sqlite:///absolute and sqlite://relative.
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            "" => Err(StoreUrlError),
            ":memory:" => Ok(Self::Memory),
            // A parameter such as `?mode=ro`, which other tools accept, would become a part of the file's name.
            path if path.contains('?') || path.contains('\0') => Err(StoreUrlError),
            // SQLite reads a name that begins with `file:` as a URI. Behind `./` it is an ordinary name.
            path if path.starts_with("file:") => Ok(Self::Sqlite(Path::new(".").join(path))),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Memory => f.write_str("sqlite::memory:"),
            Self::Postgres(url) => f.write_str(&redacted_url(url.expose())),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_url_parses_and_hides_password() {
        for (text, shown) in [
            ("sqlite:replyhook.db", "sqlite:replyhook.db"),
            ("sqlite:///data/a.db", "sqlite:/data/a.db"),
            ("sqlite:file:a.db", "sqlite:./file:a.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            (
                "postgres://u:s3cret@h:5432/db?sslmode=require",
                "postgres://…@h:5432/db?sslmode=…",
            ),
            ("postgresql://h/db", "postgresql://h/db"),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "sqlite:",
            "replyhook.db",
            "mysql://h/db",
            "sqlite:a?mode=ro",
        ] {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }
}
