//! Settings: an embedded default, a file, the environment; every problem told at once.
//!
//! [`Settings::load`] is the only reader of the environment. Each value knows where it came from, so that a problem
//! names its key, its origin, what is wrong and what to write. `default.toml` is at once the documentation, the list of
//! known keys and their types: there is no second table to keep in step.

mod calling;
mod guarding;
mod handling;
mod keeping;
mod layers;
mod media;
mod problem;
mod reader;
mod sections;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use calling::{
    OnUnknown, OutboundSettings, ReconcileSettings, SenderSettings, WebhookSettings,
};
pub use guarding::GuardSettings;
pub use handling::{HandlerKind, HandlerSettings, HandoffSettings, OnCrash};
pub use keeping::{ConsentSettings, StoreSettings};
pub use media::MediaSettings;
pub use problem::{Problem, Problems, Warning};
pub use sections::{
    AccountSettings, AdminSettings, LogFormat, LogSettings, ReplySettings, RestSettings,
    ServerSettings, SignatureMode, SignatureSettings, TelemetrySettings, TwilioSettings,
};

use layers::Layers;
use reader::Reader;

use crate::signature::PublicUrl;

/// The documented defaults, as `replyhook config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "replyhook.toml";

/// Where settings come from.
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
    /// A settings file that must exist; without one `replyhook.toml` is read if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Allows `signature.mode = "report"` on a listener that others can reach.
    pub allow_public_diagnostics: bool,
    /// Values that stand below all, by key, instead of the documented defaults.
    pub defaults: BTreeMap<&'static str, String>,
    /// Values that stand above all, by key, as a command sets them.
    pub fixed: BTreeMap<&'static str, String>,
    /// Beginnings of keys that neither the file nor the environment may set: those are passed over.
    pub ignored: Vec<&'static str>,
}

/// Names only: among the values are tokens.
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
    /// The process's environment, and `replyhook.toml` in the working directory if it is there.
    pub fn from_env() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one room that may read the environment"
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

    /// The same with further environment variables.
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

    /// Environment variables that are there and passed over, because of [`Sources::ignored`].
    pub fn ignored_env(&self) -> Vec<&str> {
        let names = self.env.iter().filter(|(_, value)| !value.is_empty());
        names
            .map(|(name, _)| name.as_str())
            .filter(|name| layers::key_of(name).is_some_and(|key| self.ignores(&key)))
            .collect()
    }

    fn ignores(&self, key: &str) -> bool {
        self.ignored.iter().any(|start| key.starts_with(start))
    }

    /// The same with a named file.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }
}

/// All settings, checked.
///
/// Read from what a program gives: see [`Sources`]. From the environment and the file it is
/// `Settings::load(&Sources::from_env())`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Tokens and accounts.
    pub twilio: TwilioSettings,
    /// The public listener and its limits.
    pub server: ServerSettings,
    /// The private listener.
    pub admin: AdminSettings,
    /// What happens to refused requests.
    pub signature: SignatureSettings,
    /// The built-in handler and the limits of any.
    pub handler: HandlerSettings,
    /// Deadlines, the apology, and what happens to replies that go by REST.
    pub reply: ReplySettings,
    /// Conversations that somebody else answers for a while.
    pub handoff: HandoffSettings,
    /// Where REST is called, and as whom.
    pub rest: RestSettings,
    /// What is kept, where and how long.
    pub store: StoreSettings,
    /// Files that messages bring.
    pub media: MediaSettings,
    /// What users say about being written to.
    pub consent: ConsentSettings,
    /// What is kept from the handler.
    pub guard: GuardSettings,
    /// What is sent first.
    pub outbound: OutboundSettings,
    /// Logs.
    pub log: LogSettings,
    /// Traces.
    pub telemetry: TelemetrySettings,
}

/// Settings with what is odd about them and where they came from.
///
/// ```
/// use replyhook::config::{Settings, Sources};
///
/// let loaded = Settings::load(&Sources::default().with_env([
///     ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
///     ("PUBLIC_URL", "http://bot.example.com"),
/// ]))?;
/// assert_eq!(loaded.warnings[0].key, "server.public_url");
/// let drain = loaded.effective.iter().find(|(key, ..)| key == "server.shutdown_timeout_s");
/// assert_eq!(drain.map(|(_, value, _)| value.as_str()), Some("20"));
/// # Ok::<(), replyhook::config::Problems>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What works and is probably not meant.
    pub warnings: Vec<Warning>,
    /// Key, value (secrets masked) and origin of every setting, sorted by key.
    pub effective: Vec<(String, String, String)>,
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
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

    /// The values as [`Settings::load`] would take them, even when they cannot be used: what `replyhook check` shows.
    pub fn effective(sources: &Sources) -> Vec<(String, String, String)> {
        Layers::read(sources, &mut Problems::default()).effective()
    }
}

/// What signing and explaining need of the settings: tokens, and `PUBLIC_URL` if it is set.
///
/// Loaded, and made into a verifier: see [`verifier`](crate::verifier).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SigningSettings {
    /// Tokens and accounts.
    pub twilio: TwilioSettings,
    /// What Twilio calls.
    pub public_url: Option<PublicUrl>,
}

impl SigningSettings {
    /// Reads only these; the rest of the settings may be missing.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let twilio = sections::twilio(&mut reader);
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
    /// Reads only `admin.listen`, for a health check beside a running server.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let admin = sections::admin(&mut reader, None);
        let (problems, _) = reader.finish();
        admin.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

impl StoreSettings {
    /// Reads only `[store]`, for a command beside a running server.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let store = keeping::store(&mut reader);
        let (problems, _) = reader.finish();
        store.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// A path as a problem names it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
