//! [`Emulator`] with its options, and [`Engine`]: the state, clock and event channel that all modules share.

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
use super::account::{EmulatedAccount, SENDERS};
use super::files::MediaFolder;
use super::links::{display_url, is_http_url};
use super::record::{DebuggerEntry, Exchange, Record};
use super::recording::Recording;
use super::state::EmulatorState;
use super::{access_key, control, media, origin, page, rest};
use crate::clock::Advance;
use crate::error_code::ErrorCode;
use crate::sid::AccountSid;
use replyhook_core::Secret;
use replyhook_core::redact::redacted_url;

// Events buffered for each subscriber. A subscriber that falls further behind is disconnected, and reloads everything.
const MAX_BUFFERED_EVENTS: usize = 1024;

/// Options of an [`Emulator`]: the webhook URLs to call, and folders for media and recordings.
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
    /// URL of the primary handler. Its fragment can contain Twilio's connection overrides, as in `#rc=2&rp=ct,5xx`.
    pub webhook: String,
    /// Fallback URL, called when the primary handler fails.
    pub fallback: Option<String>,
    /// Status callback URL of messages that do not name one themselves.
    pub status_callback: Option<String>,
    /// Folder to record conversations in, with pseudonyms, for `TestBot::replay`.
    pub record_dir: Option<PathBuf>,
    /// Folder of the files that messages may name by path (`media[].path`). Default: the working directory.
    pub media_dir: Option<PathBuf>,
    /// Requires an access key for the control API and the page. [`Emulator::page_url`] contains the key of this run.
    pub protect: bool,
}

impl EmulatorOptions {
    /// Creates options with a primary handler only.
    pub fn new(webhook: impl Into<String>) -> Self {
        Self {
            webhook: webhook.into(),
            fallback: None,
            status_callback: None,
            record_dir: None,
            media_dir: None,
            protect: false,
        }
    }
}

/// Prints URLs without passwords.
impl fmt::Debug for EmulatorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redacted = |url: &Option<String>| url.as_deref().map(redacted_url);
        f.debug_struct("EmulatorOptions")
            .field("webhook", &redacted_url(&self.webhook))
            .field("fallback", &redacted(&self.fallback))
            .field("status_callback", &redacted(&self.status_callback))
            .field("record_dir", &self.record_dir)
            .field("media_dir", &self.media_dir)
            .field("protect", &self.protect)
            .finish()
    }
}

/// Error of [`Emulator::new`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// Invalid webhook, fallback or status callback URL.
    #[error("{name}: not an http or https URL with a host, as in http://localhost:3000/sms")]
    Url {
        /// Command-line option of the URL, such as `--webhook`.
        name: &'static str,
    },
    /// The listener's address is not a loopback address.
    #[error("the emulator listens on a loopback address only")]
    NotLoopback,
    /// The recording folder cannot be created or read.
    #[error("--record {path}: {source}", path = path.display())]
    Record {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The media folder cannot be opened.
    #[error("--media-dir {path}: {source}", path = path.display())]
    MediaDir {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The listener's local address is unknown.
    #[error("could not read the address of the emulator's listener: {0}")]
    Listener(#[from] io::Error),
}

/// Access to the app under test: the state that the page shows, and fault injection.
///
/// `TestBot` and `DevServer` attach their own implementation. To show another kind of server on the page, implement the
/// trait:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use futures_util::future::{BoxFuture, ready};
/// use replyhook::emulator::{AppInspector, Emulator};
/// use serde_json::{Value, json};
///
/// struct MyServer;
///
/// impl AppInspector for MyServer {
///     fn deadline(&self) -> Duration {
///         Duration::from_secs(10)
///     }
///     fn debounce(&self) -> Duration {
///         Duration::ZERO
///     }
///     fn store(&self) -> &str {
///         "sqlite::memory:"
///     }
///     fn state(&self, _user: String, _sender: String) -> BoxFuture<'_, Value> {
///         Box::pin(ready(json!({})))
///     }
///     fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
///         Box::pin(ready(Ok(())))
///     }
///     fn inject_faults(&self, _handler_ms: u64, _handler_fails: bool) {}
/// }
///
/// fn attach(emulator: &Emulator) {
///     emulator.attach(Arc::new(MyServer));
/// }
/// # drop(attach);
/// ```
pub trait AppInspector: Send + Sync + 'static {
    /// Returns the reply deadline. The page shows it next to Twilio's 15 seconds.
    fn deadline(&self) -> Duration;

    /// Returns the debounce time: the pause to wait for a user's next message.
    fn debounce(&self) -> Duration;

    /// Returns the store's URL or description.
    ///
    /// The page warns before a reset that it deletes the content of this store, unless this is empty or
    /// `sqlite::memory:`.
    fn store(&self) -> &str;

    /// Returns a user's state as JSON, with the keys `window`, `opted_out`, `opted_in`, `handler`, `handed_off_to`,
    /// `pending` and `dialogue`.
    fn state(&self, user: String, sender: String) -> BoxFuture<'_, serde_json::Value>;

    /// Deletes everything in the store.
    fn reset(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Delays the handler by `handler_ms` milliseconds, and makes it fail if `handler_fails`.
    fn inject_faults(&self, handler_ms: u64, handler_fails: bool);
}

/// Local stand-in for Twilio.
///
/// [The module](super) has an example. `DevServer` and `TestBot` run an emulator together with an app.
#[derive(Clone)]
pub struct Emulator {
    engine: Arc<Engine>,
}

/// Shared state of an emulator.
pub(super) struct Engine {
    pub(super) account: EmulatedAccount,
    pub(super) options: EmulatorOptions,
    /// Origin of the emulator, without a trailing slash.
    pub(super) origin: String,
    pub(super) clock: Arc<dyn Advance>,
    app: Mutex<Option<Arc<dyn AppInspector>>>,
    pub(super) events: broadcast::Sender<StreamEvent>,
    pub(super) recording: Option<Recording>,
    /// `None` if `media_dir` is not set and the working directory cannot be opened.
    pub(super) media_folder: Option<Arc<MediaFolder>>,
    pub(super) access_key: Option<AccessKey>,
    state: Mutex<EmulatorState>,
}

/// Event of the control API's event stream. `data` is JSON.
#[derive(Clone)]
pub(super) struct StreamEvent {
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

impl Emulator {
    /// Creates an emulator with a new account, to be served on `listener`.
    ///
    /// # Errors
    /// [`EmulatorError`] if a URL is invalid, a folder cannot be opened, or `listener` is not on a loopback address.
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
        let urls = [
            ("--webhook", Some(&options.webhook)),
            ("--fallback", options.fallback.as_ref()),
            ("--status-callback", options.status_callback.as_ref()),
        ];
        for (name, url) in urls {
            if url.is_some_and(|url| !is_http_url(url)) {
                return Err(EmulatorError::Url { name });
            }
        }
        // Normalize as reqwest does when it sends them: the signature must cover the bytes that are sent.
        options.webhook = normalized_url(&options.webhook);
        options.fallback = options.fallback.as_deref().map(normalized_url);
        options.status_callback = options.status_callback.as_deref().map(normalized_url);
        let recording = match &options.record_dir {
            Some(path) => Some(
                Recording::open(path).map_err(|source| EmulatorError::Record {
                    path: path.clone(),
                    source,
                })?,
            ),
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
            // Opened now, so that the default folder stays the start folder. Without one, only `media[].path` fails.
            None => MediaFolder::open(Path::new(".")).ok(),
        };
        let access_key = options.protect.then(|| AccessKey::generate(address.port()));
        let engine = Engine {
            recording,
            media_folder: media_folder.map(Arc::new),
            access_key,
            account: EmulatedAccount::generate(),
            options,
            origin: format!("http://{address}"),
            clock,
            app: Mutex::default(),
            events: broadcast::Sender::new(MAX_BUFFERED_EVENTS),
            state: Mutex::default(),
        };
        Ok(Self {
            engine: Arc::new(engine),
        })
    }

    /// Returns the SID of the emulator's account.
    pub fn account_sid(&self) -> AccountSid {
        self.engine.account.sid
    }

    /// Returns the auth token that signs webhooks, generated for this run.
    pub fn auth_token(&self) -> &Secret {
        &self.engine.account.token
    }

    /// Returns the emulator's origin, to use in place of `https://api.twilio.com`.
    pub fn url(&self) -> &str {
        &self.engine.origin
    }

    /// Returns the URL of the page. With [`EmulatorOptions::protect`], it contains the access key of this run.
    ///
    /// [`EmulatorClient::new`](super::EmulatorClient::new) accepts this URL too.
    pub fn page_url(&self) -> String {
        let origin = &self.engine.origin;
        match &self.engine.access_key {
            Some(key) => format!("{origin}/?key={}", key.expose()),
            None => format!("{origin}/"),
        }
    }

    /// Attaches an app to the page, instead of the one attached before.
    pub fn attach(&self, app: Arc<dyn AppInspector>) {
        let mut attached = self
            .engine
            .app
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *attached = Some(app);
    }

    /// Reports on the page that the settings or rules were reloaded, or why not.
    pub fn announce_reload(&self, outcome: Result<(), &str>) {
        let message = outcome.err();
        let ok = outcome.is_ok();
        self.engine
            .emit("reload", &serde_json::json!({"ok": ok, "message": message}));
    }

    /// Returns the router of the page, the control API and Twilio's REST API.
    pub fn router(&self) -> axum::Router {
        let engine = self.engine.clone();
        // Only these routes check the access key. The page checks it itself, since it sets the cookie; the REST API has
        // its own credentials, and media links are signed.
        let control = control::routes().merge(media::control_routes()).layer(
            axum::middleware::from_fn_with_state(engine.clone(), access_key::require_key),
        );
        axum::Router::new()
            .merge(page::routes())
            .merge(control)
            .merge(rest::routes())
            .merge(media::routes())
            .fallback(rest::not_found)
            .with_state(engine.clone())
            .layer(axum::middleware::from_fn_with_state(
                engine,
                origin::require_local,
            ))
    }

    /// Serves requests until `stop` completes. Connections that are still open, such as event streams, are then closed.
    ///
    /// # Errors
    /// The error of the listener, if it fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let server = axum::serve(listener, self.router()).into_future();
        // Not axum's graceful shutdown, which would wait for event streams that never end.
        tokio::select! {
            result = server => result,
            () = stop => Ok(()),
        }
    }
}

fn normalized_url(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| url.to_owned(), |parsed| parsed.to_string())
}

impl Engine {
    /// Locks the state. The lock is not reentrant: while the guard lives, do not call methods that lock the state too.
    pub(super) fn state(&self) -> MutexGuard<'_, EmulatorState> {
        // Use a poisoned lock too: a panic leaves complete records, and the emulator should go on working.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the attached app, if any. Clones the handle, so that the lock is not held while the app is called.
    pub(super) fn app(&self) -> Option<Arc<dyn AppInspector>> {
        let app = self.app.lock().unwrap_or_else(PoisonError::into_inner);
        app.clone()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the default senders, and those that users have written to.
    pub(super) fn senders(&self) -> Vec<String> {
        let mut senders: Vec<String> = SENDERS.iter().map(|sender| (*sender).to_owned()).collect();
        senders.extend(self.state().senders.iter().cloned());
        senders
    }

    pub(super) fn emit(&self, name: &'static str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap_or_default();
        // Fails only without subscribers, which is the normal case in tests.
        let _ = self.events.send(StreamEvent {
            name,
            data: data.into(),
        });
    }

    pub(super) fn emit_message(&self, message: &Record) {
        let mut data = serde_json::to_value(message.to_view()).unwrap_or_default();
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

    pub(super) fn record_exchange(&self, exchange: Exchange) {
        let recorded = self.state().add_exchange(exchange);
        self.emit("exchange", &recorded);
    }

    /// Adds an entry to the debugger. The entry shows the URL without its password and fragment.
    pub(super) fn add_debugger_entry(
        &self,
        code: ErrorCode,
        detail: Option<&str>,
        message_sid: Option<&str>,
        url: Option<&str>,
    ) {
        let entry = DebuggerEntry {
            message_sid: message_sid.map(str::to_owned),
            url: url.map(display_url),
            ..DebuggerEntry::new(code, detail, self.now())
        };
        self.state().add_debugger_entry(entry.clone());
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
