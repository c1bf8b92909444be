//! The emulator itself: what it is given, and the lock, the clock and the events that its rooms share.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::access_key::AccessKey;
use super::account::{Account, SENDERS};
use super::files::MediaFolder;
use super::links::can_be_called;
use super::record::{Entry, Exchange, Record};
use super::recording::Recording;
use super::state::State;
use super::{access_key, control, media, origin, page, rest};
use crate::clock::Advance;
use crate::error_code::ErrorCode;
use crate::redact::redacted_url;
use crate::secret::Secret;
use crate::sid::AccountSid;

/// What waits for events; who is slower asks for everything again.
const EVENTS: usize = 1024;

/// What the emulator calls.
///
/// ```
/// use replyhook::emulator::EmulatorOptions;
///
/// let mut options = EmulatorOptions::new("http://localhost:3000/sms#rc=2&rp=ct,5xx");
/// options.fallback = Some("http://localhost:3000/sms/fallback".to_owned());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct EmulatorOptions {
    /// Where inbound messages are posted. A fragment carries Twilio's connection overrides, as in `#rc=2&rp=ct,5xx`.
    pub webhook: String,
    /// Called when that fails.
    pub fallback: Option<String>,
    /// Where it is reported what becomes of messages, unless whoever sends one names another place.
    pub status_callback: Option<String>,
    /// A folder that conversations are written into, pseudonymised, for the test kit to replay.
    pub record: Option<PathBuf>,
    /// The folder whose files messages may name by their path (`media[].path`). Without one, the working directory.
    pub media_dir: Option<PathBuf>,
    /// Whether the control interface and the page need the key of this run, which [`Emulator::page_url`] carries.
    pub protect: bool,
}

impl EmulatorOptions {
    /// A webhook alone.
    pub fn new(webhook: impl Into<String>) -> Self {
        Self {
            webhook: webhook.into(),
            fallback: None,
            status_callback: None,
            record: None,
            media_dir: None,
            protect: false,
        }
    }
}

/// URLs are shown without passwords.
impl fmt::Debug for EmulatorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<String>| url.as_deref().map(redacted_url);
        f.debug_struct("EmulatorOptions")
            .field("webhook", &redacted_url(&self.webhook))
            .field("fallback", &shown(&self.fallback))
            .field("status_callback", &shown(&self.status_callback))
            .field("record", &self.record)
            .field("media_dir", &self.media_dir)
            .field("protect", &self.protect)
            .finish()
    }
}

/// Why there is no emulator.
///
/// When there is none: see [`Emulator`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// A URL is not one that can be called.
    #[error("{name}: not an http or https URL with a host, as in http://localhost:3000/sms")]
    Url {
        /// Which.
        name: &'static str,
    },
    /// Others could reach it.
    #[error("the emulator listens on a loopback address only")]
    NotLoopback,
    /// Nothing can be written there.
    #[error("--record {path}: {source}", path = path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder of media cannot be opened.
    #[error("--media-dir {path}: {source}", path = path.display())]
    MediaDir {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// The listener has no address.
    #[error("the emulator's listener: {0}")]
    Listener(#[from] io::Error),
}

/// Our own server, where the emulator runs beside it: what its page shows of it, and what it does to it.
///
/// Nobody needs one who has a `TestBot`, or a `Desk`, which hand over their own. Beside a server of another kind:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use futures_util::future::{BoxFuture, ready};
/// use replyhook::emulator::{Emulator, OwnServer};
/// use serde_json::{Value, json};
///
/// struct Mine;
///
/// impl OwnServer for Mine {
///     fn deadline(&self) -> Duration {
///         Duration::from_secs(10)
///     }
///     fn pause(&self) -> Duration {
///         Duration::ZERO
///     }
///     fn store(&self) -> &str {
///         "in memory"
///     }
///     fn state(&self, _user: String, _sender: String) -> BoxFuture<'_, Value> {
///         Box::pin(ready(json!({})))
///     }
///     fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
///         Box::pin(ready(Ok(())))
///     }
///     fn disturb(&self, _handler_ms: u64, _handler_fails: bool) {}
/// }
///
/// fn beside(emulator: &Emulator) {
///     emulator.attach(Arc::new(Mine));
/// }
/// # drop(beside);
/// ```
pub trait OwnServer: Send + Sync + 'static {
    /// After this long it answers by REST: shown beside Twilio's 15 seconds.
    fn deadline(&self) -> Duration;

    /// How long it waits for a user's next message before it answers.
    fn pause(&self) -> Duration;

    /// Where it keeps what a reset forgets.
    fn store(&self) -> &str;

    /// What it knows of a user: window, consent, dialogue, who else answers, and how many messages are not done.
    fn state(&self, user: String, sender: String) -> BoxFuture<'_, serde_json::Value>;

    /// Forgets everything that it keeps.
    fn reset(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Makes its handler slower by so many milliseconds, or fail.
    fn disturb(&self, handler_ms: u64, handler_fails: bool);
}

/// A Twilio on this machine.
///
/// Started: see [the module](super); with a bot beside it: see `Desk`, and `TestBot`.
#[derive(Clone)]
pub struct Emulator {
    engine: Arc<Engine>,
}

pub(super) struct Engine {
    pub(super) account: Account,
    pub(super) options: EmulatorOptions,
    /// Its own, without a slash at the end.
    pub(super) origin: String,
    pub(super) clock: Arc<dyn Advance>,
    own: Mutex<Option<Arc<dyn OwnServer>>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) recording: Option<Recording>,
    /// Nothing if the working directory is gone.
    pub(super) media_folder: Option<Arc<MediaFolder>>,
    pub(super) access_key: Option<AccessKey>,
    state: Mutex<State>,
}

/// Something that happened, as it is sent to who listens.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

impl Emulator {
    /// An emulator that will be served by `listener`, with an account of its own.
    ///
    /// # Errors
    /// [`EmulatorError`] when a URL cannot be called, nothing can be recorded, or others could reach the listener.
    pub fn new(
        options: EmulatorOptions,
        clock: Arc<dyn Advance>,
        listener: &TcpListener,
    ) -> Result<Self, EmulatorError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(EmulatorError::NotLoopback);
        }
        let mut options = options;
        let named = [
            ("--webhook", Some(&options.webhook)),
            ("--fallback", options.fallback.as_ref()),
            ("--status-callback", options.status_callback.as_ref()),
        ];
        for (name, url) in named {
            if url.is_some_and(|url| !can_be_called(url)) {
                return Err(EmulatorError::Url { name });
            }
        }
        // As they are sent: what is signed is every byte of it.
        options.webhook = as_sent(&options.webhook);
        options.fallback = options.fallback.as_deref().map(as_sent);
        options.status_callback = options.status_callback.as_deref().map(as_sent);
        let recording = match &options.record {
            Some(path) => {
                Some(
                    Recording::into_folder(path).map_err(|source| EmulatorError::Record {
                        path: path.clone(),
                        source,
                    })?,
                )
            }
            None => None,
        };
        let media_folder = match &options.media_dir {
            Some(path) => {
                let folder = MediaFolder::open(path).map_err(|source| EmulatorError::MediaDir {
                    path: path.clone(),
                    source,
                })?;
                Some(folder)
            }
            None => MediaFolder::open(Path::new(".")).ok(),
        };
        let access_key = options.protect.then(|| AccessKey::generate(address.port()));
        let engine = Engine {
            recording,
            media_folder: media_folder.map(Arc::new),
            access_key,
            account: Account::generate(),
            options,
            origin: format!("http://{address}"),
            clock,
            own: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            state: Mutex::default(),
        };
        Ok(Self {
            engine: Arc::new(engine),
        })
    }

    /// The account that it plays.
    pub fn account_sid(&self) -> AccountSid {
        self.engine.account.sid
    }

    /// The token that it signs with, made for this run.
    pub fn auth_token(&self) -> &Secret {
        &self.engine.account.token
    }

    /// Where it is: what stands for `https://api.twilio.com`.
    pub fn url(&self) -> &str {
        &self.engine.origin
    }

    /// The address of the page. With [`EmulatorOptions::protect`] it carries the key of this run.
    ///
    /// [`Remote::new`](super::Remote::new) takes it too.
    pub fn page_url(&self) -> String {
        let origin = &self.engine.origin;
        match &self.engine.access_key {
            Some(key) => format!("{origin}/?key={}", key.expose()),
            None => format!("{origin}/"),
        }
    }

    /// Shows, resets and disturbs our own server from now on, instead of the one before.
    pub fn attach(&self, own: Arc<dyn OwnServer>) {
        let mut attached = self
            .engine
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *attached = Some(own);
    }

    /// Tells the page that the bot's settings were read anew, or why not.
    pub fn announce_reload(&self, outcome: Result<(), &str>) {
        let message = outcome.err();
        let ok = outcome.is_ok();
        self.engine
            .emit("reload", &serde_json::json!({"ok": ok, "message": message}));
    }

    /// The page, the control interface and Twilio's REST API.
    pub fn router(&self) -> axum::Router {
        let engine = self.engine.clone();
        let control = control::routes().merge(media::control_routes()).layer(
            axum::middleware::from_fn_with_state(engine.clone(), access_key::check),
        );
        axum::Router::new()
            .merge(page::routes())
            .merge(control)
            .merge(rest::routes())
            .merge(media::routes())
            .fallback(rest::not_found)
            .with_state(engine.clone())
            .layer(axum::middleware::from_fn_with_state(engine, origin::check))
    }

    /// Serves until `stop`. Connections that are open then, such as those of events, are cut off.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let serve = axum::serve(listener, self.router()).into_future();
        tokio::select! {
            served = serve => served,
            () = stop => Ok(()),
        }
    }
}

fn as_sent(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| url.to_owned(), |parsed| parsed.to_string())
}

impl Engine {
    /// A panic in another holder leaves records, each of them whole.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our own server, where there is one.
    pub(super) fn own(&self) -> Option<Arc<dyn OwnServer>> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.clone()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// All senders that are known.
    pub(super) fn senders(&self) -> Vec<String> {
        let mut senders: Vec<String> = SENDERS.iter().map(|sender| (*sender).to_owned()).collect();
        senders.extend(self.state().senders.iter().cloned());
        senders
    }

    pub(super) fn emit(&self, name: &'static str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap_or_default();
        // Nobody listens, which is no matter.
        let _ = self.events.send(Event {
            name,
            data: data.into(),
        });
    }

    pub(super) fn emit_message(&self, message: &Record) {
        let mut data = serde_json::to_value(message.show()).unwrap_or_default();
        data["user"] = message.user.as_str().into();
        self.emit("message", &data);
    }

    pub(super) fn emit_status(&self, message: &Record) {
        let data = serde_json::json!({
            "user": message.user,
            "sid": message.sid,
            "status": message.status.as_str(),
            "error_code": message.error_code.map(|code| code.0),
        });
        self.emit("status", &data);
    }

    pub(super) fn record(&self, exchange: Exchange) {
        let recorded = self.state().record(exchange);
        self.emit("exchange", &recorded);
    }

    /// Writes into Twilio's debugger.
    pub(super) fn debug(
        &self,
        code: ErrorCode,
        detail: Option<&str>,
        message_sid: Option<&str>,
        url: Option<&str>,
    ) {
        let entry = Entry {
            message_sid: message_sid.map(str::to_owned),
            url: url.map(str::to_owned),
            ..Entry::new(code, detail, self.now())
        };
        self.state().write_down(entry.clone());
        self.emit("debugger", &entry);
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("origin", &self.engine.origin)
            .finish_non_exhaustive()
    }
}
