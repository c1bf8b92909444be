//! What is wrong with settings, told so that it can be mended.

use std::fmt;

/// One problem: which key, where its value came from, what is wrong and what to write.
///
/// All of them together: see [`Problems`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Such as `server.shutdown_timeout_s`.
    pub key: String,
    /// Such as `replyhook.toml` or `environment variable PORT`.
    pub origin: String,
    /// What is wrong, and what to write instead. Never a secret's value.
    pub text: String,
}

/// Something that works and is probably not meant.
///
/// As it comes: see [`Loaded`](super::Loaded).
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
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
