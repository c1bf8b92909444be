//! Errors of [`AppBuilder::build`](crate::AppBuilder::build), [`App::run`](crate::App::run) and
//! [`Worker::run`](crate::Worker::run).

use std::fmt;

use crate::store::StoreError;

/// Exit code of a wrong configuration, as of a wrong usage.
const EXIT_CONFIG: u8 = 2;
/// Exit code of a failed disk: `EX_IOERR` of sysexits.h.
const EXIT_IO: u8 = 74;

/// Error of a server that cannot start, or that had to end.
///
/// [`AppError::kind`] classifies the error. `Display` is a message for the operator, with the fix.
///
/// ```
/// use replyhook::config::Sources;
/// use replyhook::{App, AppErrorKind};
///
/// let error = App::builder().sources(Sources::default()).build().unwrap_err();
/// assert_eq!(error.kind(), AppErrorKind::Config);
/// assert!(error.to_string().contains("server.public_url"));
/// assert_eq!(error.exit_code(), 2);
/// ```
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct AppError {
    kind: AppErrorKind,
    message: String,
    exit_code: u8,
}

/// Kind of an [`AppError`].
///
/// See [`AppError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppErrorKind {
    /// Settings are missing or invalid; the message lists all problems.
    Config,
    /// The server could not listen on an address.
    Listen,
    /// The store could not be opened; the message contains the fix.
    Store,
    /// The disk has failed. Nothing was acknowledged since; restart the server when the disk works.
    Disk,
    /// A background task kept failing, which is a bug in replyhook.
    Task,
    /// A part of a running `DevServer` ended: a task panicked, or a listener failed.
    Ended,
    /// A second SIGTERM or SIGINT, or the end of `server.shutdown_timeout_s`, aborted work in progress.
    Interrupted,
}

impl AppError {
    /// Creates an error of invalid settings; `problems` becomes the message unchanged.
    pub(crate) fn config(problems: &impl fmt::Display) -> Self {
        Self {
            kind: AppErrorKind::Config,
            message: problems.to_string(),
            exit_code: EXIT_CONFIG,
        }
    }

    /// Creates an error of an address on which the server cannot listen; `name` is its setting.
    #[cfg(feature = "server")]
    pub(crate) fn listen(name: &str, address: &str, error: &std::io::Error) -> Self {
        Self {
            kind: AppErrorKind::Listen,
            message: format!("cannot listen on {address} ({name}): {error}"),
            exit_code: EXIT_CONFIG,
        }
    }

    /// Creates an error of a store that cannot be opened.
    // `url` comes from `StoreUrl`, whose `Display` hides the password.
    pub(crate) fn store(url: &str, error: &StoreError) -> Self {
        Self {
            kind: AppErrorKind::Store,
            message: format!("cannot open {url} (DATABASE_URL): {error}"),
            exit_code: EXIT_CONFIG,
        }
    }

    /// Creates an error of a part that ended while the server was running.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(crate) fn ended(part: &str, reason: &impl fmt::Display) -> Self {
        Self {
            kind: AppErrorKind::Ended,
            message: format!("{part} ended: {reason}"),
            exit_code: 1,
        }
    }

    /// Creates an error of a store whose disk has failed.
    pub(crate) fn disk(url: &str) -> Self {
        Self {
            kind: AppErrorKind::Disk,
            message: format!(
                "the disk of {url} (DATABASE_URL) failed; check it, then restart the server"
            ),
            exit_code: EXIT_IO,
        }
    }

    /// Creates an error of a background task that kept failing.
    pub(crate) fn task(task: &str) -> Self {
        Self {
            kind: AppErrorKind::Task,
            message: format!(
                "the background task `{task}` kept failing, which is a bug in replyhook; the log has the reason"
            ),
            exit_code: 1,
        }
    }

    /// Creates an error of a shutdown that aborted work in progress. `number` is that of the signal.
    #[cfg(feature = "server")]
    pub(crate) fn interrupted(signal: &str, number: u8) -> Self {
        Self {
            kind: AppErrorKind::Interrupted,
            message: format!("{signal} ended the server before all work in progress was finished"),
            // The shell's convention for a process that a signal ended.
            exit_code: 128 + number,
        }
    }

    /// Returns the exit code for a process that ends with this error: 2 if the server could not start, 74 if the disk
    /// failed, 130 (SIGINT) or 143 (SIGTERM) if work in progress was aborted, else 1.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> AppErrorKind {
        self.kind
    }
}

/// Same as `Display`, because a `main` that returns this error prints its `Debug` form to the operator.
impl fmt::Debug for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
