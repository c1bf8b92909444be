//! [`Emulator`]: starts from options, and serves the page, the control API and Twilio's REST API.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::app_inspector::AppInspector;
use super::engine::Engine;
use super::files::MediaFolder;
use super::links::is_http_url;
use super::options::EmulatorOptions;
use super::recording::Recording;
use super::{access_key, control, media, origin, page, rest};
use replyhook_core::Secret;
use replyhook_core::clock::Advance;
use replyhook_core::sid::AccountSid;

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

/// Local stand-in for Twilio.
///
/// [The module](super) has an example. `DevServer` and `TestBot` run an emulator together with an app.
#[derive(Clone)]
pub struct Emulator {
    engine: Arc<Engine>,
}

impl Emulator {
    /// Creates an emulator, to be served on `listener`.
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
        let engine = Engine::new(options, clock, address, recording, media_folder);
        Ok(Self {
            engine: Arc::new(engine),
        })
    }

    /// Returns the SID of the emulator's account.
    pub fn account_sid(&self) -> AccountSid {
        self.engine.account.sid
    }

    /// Returns the auth token that signs webhooks.
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
        self.engine.attach(app);
    }

    /// Marks an inbound message with the reason why its handler failed; `None` for a handler that succeeded.
    pub fn report_handler(&self, message_sid: &str, failure: Option<&str>) {
        let changed = {
            let mut state = self.engine.state();
            let message = state.message_mut(message_sid);
            // Most handlers succeed, and then nothing changes.
            let message = message.filter(|message| message.failure.as_deref() != failure);
            message.map(|message| {
                message.failure = failure.map(str::to_owned);
                message.clone()
            })
        };
        if let Some(message) = changed {
            self.engine.emit_status(&message);
        }
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
            axum::middleware::from_fn_with_state(
                engine.access_key.clone(),
                access_key::require_key,
            ),
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

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("origin", &self.engine.origin)
            .finish_non_exhaustive()
    }
}
