//! Errors of [`AppBuilder::build`](crate::AppBuilder::build), [`App::run`](crate::App::run) and
//! [`Worker::run`](crate::Worker::run).

use std::fmt;

use crate::store::StoreError;

/// Error of a server that cannot start.
///
/// [`StartError::kind`] classifies the error. `Display` is a message for the operator, with the fix.
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

/// Kind of a [`StartError`].
///
/// See [`StartError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartErrorKind {
    /// Settings are missing or invalid; the message lists all problems.
    Config,
    /// The server could not listen on an address.
    Listen,
    /// The store could not be opened; the message contains the fix.
    Store,
}

impl StartError {
    /// Creates an error of invalid settings; `problems` becomes the message unchanged.
    pub(crate) fn config(problems: &impl fmt::Display) -> Self {
        Self {
            kind: StartErrorKind::Config,
            message: problems.to_string(),
        }
    }

    /// Creates an error of an address on which the server cannot listen; `name` is its setting.
    #[cfg(feature = "server")]
    pub(crate) fn listen(name: &str, address: &str, error: &std::io::Error) -> Self {
        Self {
            kind: StartErrorKind::Listen,
            message: format!("cannot listen on {address} ({name}): {error}"),
        }
    }

    /// Creates an error of a store that cannot be opened.
    // `url` comes from `StoreUrl`, whose `Display` hides the password.
    pub(crate) fn store(url: &str, error: &StoreError) -> Self {
        Self {
            kind: StartErrorKind::Store,
            message: format!("cannot open {url} (DATABASE_URL): {error}"),
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> StartErrorKind {
        self.kind
    }
}

/// Same as `Display`, because a `main` that returns this error prints its `Debug` form to the operator.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
