//! Settings from embedded defaults, a file and the environment. All problems are reported together.
//!
//! [`Sources::from_env`] is the only reader of the environment. Each value has an origin, so that a problem can name
//! the key, the origin, the mistake and the fix. `default.toml` is the documentation, and also defines the known keys
//! and their types, which avoids a second table that would have to be kept in sync.

mod cli;
mod guard;
mod handler;
mod layers;
mod media;
mod problem;
mod reader;
mod sections;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use cli::{
    OnUnknown, OutboundSettings, ReconcileSettings, SendSettings, SenderWebhookSettings,
};
pub use guard::GuardSettings;
pub use handler::{HandlerKind, HandlerSettings, HandoffSettings, OnCrash};
pub use media::MediaSettings;
pub use problem::{Problem, Problems, Warning};
pub use sections::{
    AccountSettings, AdminSettings, LogFormat, LogSettings, ReplySettings, RestSettings,
    ServerSettings, SignatureMode, SignatureSettings, TelemetrySettings, TwilioSettings,
};
pub use store::{ConsentSettings, StoreSettings};

use layers::Layers;
use reader::SettingsReader;

use crate::signature::PublicUrl;

/// The defaults with their documentation, as `replyhook config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The file to read if no other is named. It is optional.
const DEFAULT_FILE: &str = "replyhook.toml";

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

    /// Returns the names of environment variables that are set but match [`Sources::ignored`].
    pub fn ignored_env(&self) -> Vec<&str> {
        // An empty value means "not set".
        let names = self.env.iter().filter(|(_, value)| !value.is_empty());
        names
            .map(|(name, _)| name.as_str())
            .filter(|name| layers::key_of_env_var(name).is_some_and(|key| self.ignores(&key)))
            .collect()
    }

    fn ignores(&self, key: &str) -> bool {
        self.ignored.iter().any(|start| key.starts_with(start))
    }

    /// Sets the settings file, which must exist.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }
}

/// All settings, validated.
///
/// `Settings::load(&Sources::from_env())` reads them from the environment and the file. See [`Sources`] for an example
/// with other sources.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Auth tokens and accounts.
    pub twilio: TwilioSettings,
    /// The public listener and its limits.
    pub server: ServerSettings,
    /// The private listener.
    pub admin: AdminSettings,
    /// Responses to requests whose signature does not verify.
    pub signature: SignatureSettings,
    /// The built-in handler, and limits that apply to every handler.
    pub handler: HandlerSettings,
    /// Deadline, debouncing, fallback text and length of replies.
    pub reply: ReplySettings,
    /// Handoffs of conversations to another system.
    pub handoff: HandoffSettings,
    /// URLs and API key of the REST API.
    pub rest: RestSettings,
    /// The store and its retention.
    pub store: StoreSettings,
    /// Storage of received media.
    pub media: MediaSettings,
    /// Opt-ins and opt-outs.
    pub consent: ConsentSettings,
    /// Loop detection and rate limits.
    pub guard: GuardSettings,
    /// Outbound messages.
    pub outbound: OutboundSettings,
    /// Logging.
    pub log: LogSettings,
    /// Traces.
    pub telemetry: TelemetrySettings,
}

/// Settings with their warnings and origins.
///
/// ```
/// use replyhook::config::{Settings, Sources};
///
/// let loaded = Settings::load(&Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "http://bot.example.com"),
/// ]))?;
/// assert_eq!(loaded.warnings[0].key, "server.public_url");
/// let timeout = loaded.effective.iter().find(|(key, ..)| key == "server.shutdown_timeout_s");
/// assert_eq!(timeout.map(|(_, value, _)| value.as_str()), Some("20"));
/// # Ok::<(), replyhook::config::Problems>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings about valid but suspicious values.
    pub warnings: Vec<Warning>,
    /// Key, value (secrets masked) and origin of every setting, sorted by key.
    pub effective: Vec<(String, String, String)>,
}

impl Settings {
    /// Reads and validates all settings.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let settings = sections::read(&mut reader, sources.allow_public_diagnostics);
        let (problems, warnings) = reader.finish();
        match settings {
            Some(settings) if problems.is_empty() => Ok(Loaded {
                settings,
                warnings,
                effective: layers.effective(),
            }),
            _ => Err(problems),
        }
    }

    /// Returns key, masked value and origin of every setting, even if [`Settings::load`] rejects them.
    ///
    /// `replyhook check` shows this list.
    pub fn effective(sources: &Sources) -> Vec<(String, String, String)> {
        Layers::read(sources, &mut Problems::default()).effective()
    }
}

/// The settings for signing and explaining requests: auth tokens, and `PUBLIC_URL` if it is set.
///
/// See [`TwilioSettings::signature_verifier`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SigningSettings {
    /// Auth tokens and accounts.
    pub twilio: TwilioSettings,
    /// The URL that Twilio calls.
    pub public_url: Option<PublicUrl>,
}

impl SigningSettings {
    /// Reads only these settings; others may be missing.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let twilio = sections::twilio(&mut reader);
        // `sections::public_url` would report a missing URL, which is optional here.
        let public_url = if layers.is_set("server.public_url") {
            sections::public_url(&mut reader)
        } else {
            None
        };
        let (problems, _) = reader.finish();
        match twilio {
            Some(twilio) if problems.is_empty() => Ok(Self { twilio, public_url }),
            _ => Err(problems),
        }
    }
}

impl AdminSettings {
    /// Reads only `admin.listen`, for a health check of a running server.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let admin = sections::admin(&mut reader, None);
        let (problems, _) = reader.finish();
        admin.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

impl StoreSettings {
    /// Reads only `[store]`, for a command that works on the store of a running server.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let store = store::store(&mut reader);
        let (problems, _) = reader.finish();
        store.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

fn display_path(path: &Path) -> String {
    path.display().to_string()
}
