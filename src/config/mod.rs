//! Settings from embedded defaults, a file and the environment. All problems are reported together.
//!
//! [`Sources::from_env`] is the only reader of the environment. Each value has an origin, so that a problem can name
//! the key, the origin, the mistake and the fix. `default.toml` is the documentation, and also defines the known keys
//! and their types, which avoids a second table that would have to be kept in sync.

mod admin;
mod changes;
mod choices;
mod cli;
mod consent;
mod guard;
mod handler;
mod layers;
mod media;
mod paths;
mod problem;
mod reader;
mod sections;
mod shared_keys;
mod sources;
mod store;
mod twilio;

pub use admin::AdminSettings;
pub(crate) use changes::{ChangedKeys, LOG_LEVEL, SettingValues};
pub use choices::ChoicesSettings;
pub use cli::{
    OnUnknown, OutboundSettings, ReconcileSettings, SendSettings, SenderWebhookSettings,
};
pub use consent::ConsentSettings;
#[cfg(all(feature = "server", feature = "emulator"))]
pub(crate) use consent::has_own_sms_keywords;
pub use guard::GuardSettings;
pub use handler::{HandlerKind, HandlerSettings, HandoffSettings, OnCrash};
pub use media::MediaSettings;
#[cfg(all(feature = "server", feature = "emulator"))]
pub(crate) use paths::load_webhook_paths;
pub use problem::{Problem, Problems, Warning};
pub use sections::{
    LogFormat, LogSettings, ReplyRoute, ReplySettings, RestSettings, ServerSettings, SignatureMode,
    SignatureSettings, TelemetrySettings,
};
pub use shared_keys::SharedKeySettings;
pub use sources::{DEFAULT_TOML, Sources};
#[cfg(feature = "server")]
pub(crate) use store::LOCAL_STORE_ON_FLY;
pub use store::StoreSettings;
pub use twilio::{AccountSettings, TwilioSettings};

pub use crate::consent::{SmsKeywords, is_toll_free};

use layers::Layers;
use reader::SettingsReader;
use twilio::AccountUse;

use crate::signature::PublicUrl;

/// All settings, validated.
///
/// `Settings::load(&Sources::from_env())` reads them from the environment and the file. See [`Sources`] for an example
/// with other sources.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Accounts with their auth tokens and API keys, and shared keys.
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
    /// URLs of the REST API.
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
    /// Values to compare with those of another reading.
    pub(crate) values: SettingValues,
    /// True if a settings file was read.
    pub(crate) has_file: bool,
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
        let settings = read_sections(&mut reader, sources);
        let values = SettingValues::new(&layers, reader.take_secrets());
        let (problems, warnings) = reader.finish();
        match settings {
            Some(settings) if problems.is_empty() => Ok(Loaded {
                settings,
                warnings,
                effective: layers.effective(),
                values,
                has_file: layers.has_file,
            }),
            _ => Err(problems),
        }
    }

    /// Returns these settings with those of `new` that a reload applies.
    // The counterpart of the keys that `changes` lists.
    pub(crate) fn with_reloaded(&self, new: &Self) -> Self {
        let mut settings = self.clone();
        settings.twilio.clone_from(&new.twilio);
        settings.consent.clone_from(&new.consent);
        settings.consent.required = self.consent.required;
        settings.guard.clone_from(&new.guard);
        settings.log.level.clone_from(&new.log.level);
        if let (Some(current), Some(new)) = (&self.handler.events, &new.handler.events) {
            settings.handler.events = Some(current.with_url_of(new));
        }
        settings
    }

    /// Returns key, masked value and origin of every setting, even if [`Settings::load`] rejects them.
    ///
    /// `replyhook check` shows this list.
    pub fn effective(sources: &Sources) -> Vec<(String, String, String)> {
        Layers::read(sources, &mut Problems::default()).effective()
    }
}

/// The settings for signing and explaining requests: keys of accounts, and `PUBLIC_URL` if it is set.
///
/// See [`TwilioSettings::signature_verifier`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SigningSettings {
    /// Accounts with their auth tokens and API keys, and shared keys.
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
        let twilio = twilio::twilio(&mut reader, AccountUse::Sign);
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
        let admin = admin::admin_address(&mut reader);
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

impl GuardSettings {
    /// Reads only `[guard]`, for a command that says whether a user gets replies.
    ///
    /// ```
    /// use replyhook::config::{GuardSettings, Sources};
    ///
    /// let guard = GuardSettings::load(&Sources::default().with_env([("REPLYHOOK__GUARD__BLOCK", "+1555")]))?;
    /// assert!(guard.block[0].matches(&"whatsapp:+15550001111".into()));
    /// # Ok::<(), replyhook::config::Problems>(())
    /// ```
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let guard = guard::guard(&mut reader);
        let (problems, _) = reader.finish();
        guard.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// Reads all sections, or records their problems and returns `None`.
fn read_sections(reader: &mut SettingsReader<'_>, sources: &Sources) -> Option<Settings> {
    // Only a dev server ignores these settings.
    let account_use = if sources.ignores(layers::ACCOUNTS_PREFIX) {
        AccountUse::ServeEmulator
    } else {
        AccountUse::Serve
    };
    // Read every section before the first `?`: an early return would hide the problems of later sections.
    let twilio = twilio::twilio(reader, account_use);
    let server = sections::server(reader);
    let admin = admin::admin(reader, server.as_ref());
    let signature = sections::signature(reader, server.as_ref(), sources.allow_public_diagnostics);
    let handler = handler::handler(reader);
    let reply = sections::reply(reader);
    let handoff = handler::handoff(reader);
    let rest = sections::rest(reader);
    let store = store::store(reader);
    let media = media::media(reader);
    let consent = consent::consent(reader);
    let guard = guard::guard(reader);
    let outbound = cli::outbound(reader);
    let log = sections::log(reader);
    let telemetry = sections::telemetry(reader);
    Some(Settings {
        twilio: twilio?,
        server: server?,
        admin: admin?,
        signature: signature?,
        handler: handler?,
        reply: reply?,
        handoff: handoff?,
        rest: rest?,
        store: store?,
        media: media?,
        consent: consent?,
        guard: guard?,
        outbound: outbound?,
        log: log?,
        telemetry: telemetry?,
    })
}
