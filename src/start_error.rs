//! Why a server did not start.

use std::fmt;

use crate::store::StoreError;

/// Why the server did not start.
///
/// Opaque: [`StartError::kind`] tells what it is about, `Display` tells the operator what to do.
///
/// ```
/// use replyhook::config::Sources;
/// use replyhook::{App, StartErrorKind};
///
/// let error = App::builder().sources(Sources::default()).build().unwrap_err();
/// assert_eq!(error.kind(), StartErrorKind::Config);
/// assert!(error.to_string().contains("server.public_url"));
/// ```
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    kind: StartErrorKind,
    message: String,
}

/// What a [`StartError`] is about.
///
/// Of settings that are missing: see [`StartError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartErrorKind {
    /// A setting is missing or wrong; the message lists every problem at once.
    Config,
    /// An address could not be listened on.
    Listen,
    /// The store could not be opened; the message says what to do.
    Store,
}

impl StartError {
    /// Settings that cannot be used; `problems` is printed as it is.
    pub(crate) fn config(problems: &impl fmt::Display) -> Self {
        Self {
            kind: StartErrorKind::Config,
            message: problems.to_string(),
        }
    }

    /// An address that cannot be listened on.
    #[cfg(feature = "server")]
    pub(crate) fn listen(name: &str, address: &str, error: &std::io::Error) -> Self {
        Self {
            kind: StartErrorKind::Listen,
            message: format!("cannot listen on {address} ({name}): {error}"),
        }
    }

    /// A store that cannot be opened.
    pub(crate) fn store(url: &str, error: &StoreError) -> Self {
        Self {
            kind: StartErrorKind::Store,
            message: format!("cannot open {url} (DATABASE_URL): {error}"),
        }
    }

    /// What it is about.
    pub fn kind(&self) -> StartErrorKind {
        self.kind
    }
}

/// The same as `Display`: a `main` that returns it prints this to the operator.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
