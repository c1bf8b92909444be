//! Problems with settings, each with its origin and its fix.

use std::fmt;

/// A problem with one setting: its key, its origin, the mistake and the fix.
///
/// See [`Problems`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Key of the setting, such as `server.shutdown_timeout_s`.
    pub key: String,
    /// Origin of the value, such as `replyhook.toml` or `environment variable PORT`.
    pub origin: String,
    /// The mistake and the fix. Never contains the value of a secret.
    pub text: String,
}

/// A valid but suspicious setting.
///
/// See [`Loaded`](super::Loaded) for an example.
pub type Warning = Problem;

/// All problems of the settings.
///
/// ```
/// use replyhook::config::{Settings, Sources};
///
/// let sources = Sources::default().with_env([("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "soon")]);
/// let problems = Settings::load(&sources).unwrap_err();
/// let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
/// assert!(keys.contains(&"server.public_url") && keys.contains(&"server.shutdown_timeout_s"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(
        &mut self,
        key: impl Into<String>,
        origin: impl Into<String>,
        text: impl fmt::Display,
    ) {
        self.0.push(Problem {
            key: key.into(),
            origin: origin.into(),
            text: text.to_string(),
        });
    }

    pub(super) fn only(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns an iterator over the problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in the settings:", self.0.len())?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
