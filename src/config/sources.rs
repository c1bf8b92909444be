//! [`Sources`] of settings, and the only reader of the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The defaults with their documentation, as `replyhook config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The file to read if no other is named. It is optional.
pub(super) const DEFAULT_FILE: &str = "replyhook.toml";

/// The sources of settings: a file, environment variables, and values of the program.
///
/// ```
/// use replyhook::config::{Settings, Sources};
///
/// let sources = Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "https://bot.example.com"),
///     ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "5"),
/// ]);
/// let settings = Settings::load(&sources)?.settings;
/// assert_eq!(settings.server.shutdown_timeout.as_secs(), 5);
/// // Tokens are never shown.
/// assert!(!format!("{sources:?}").contains("0123456789abcdef"));
/// # Ok::<(), replyhook::config::Problems>(())
/// ```
#[derive(Clone, Default)]
pub struct Sources {
    /// A settings file, which must exist; `None` reads `replyhook.toml` if it exists.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Allows `signature.mode = "report"` on a listener that is not on loopback.
    pub allow_public_diagnostics: bool,
    /// Values by key that replace the documented defaults; the file and the environment override them.
    pub defaults: BTreeMap<&'static str, String>,
    /// Values by key that override all other sources, such as those of a command's options.
    pub fixed: BTreeMap<&'static str, String>,
    /// Prefixes of keys that are ignored in the file and in the environment.
    pub ignored: Vec<&'static str>,
}

/// Shows names only, because values may be secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("env", &self.env.keys())
            .field("defaults", &self.defaults.keys())
            .field("fixed", &self.fixed.keys())
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// Returns the process's environment, and `replyhook.toml` of the working directory if it exists.
    pub fn from_env() -> Self {
        // `vars_os`: `vars` panics if any variable is not UTF-8. Such variables are skipped.
        #[expect(
            clippy::disallowed_methods,
            reason = "the only place that reads the environment"
        )]
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file: None,
            env,
            ..Self::default()
        }
    }

    /// Adds environment variables, replacing those of the same name.
    #[must_use]
    pub fn with_env<N: Into<String>, V: Into<String>>(
        mut self,
        env: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.env.extend(
            env.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        self
    }

    /// Returns these sources with a file that must exist: the default one if no other is named.
    pub(crate) fn with_required_file(&self) -> Self {
        let mut sources = self.clone();
        sources.file.get_or_insert_with(|| DEFAULT_FILE.into());
        sources
    }

    pub(super) fn ignores(&self, key: &str) -> bool {
        self.ignored.iter().any(|start| key.starts_with(start))
    }

    /// Sets the settings file, which must exist.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }
}

pub(super) fn display_path(path: &Path) -> String {
    path.display().to_string()
}
