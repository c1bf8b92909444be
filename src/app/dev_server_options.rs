//! Options of a dev server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Advance;
use crate::sid::AccountSid;
use replyhook_core::Secret;
use replyhook_core::redact::redacted_url;

/// Options of [`DevServer::start`](super::dev_server::DevServer::start).
///
/// ```
/// use replyhook::DevServerOptions;
///
/// let mut options = DevServerOptions::default();
/// options.webhook = Some("http://localhost:3000/sms".to_owned());
/// options.emulator_port = Some(0);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DevServerOptions {
    /// Webhook URL of another server, in any language; `None` starts the app.
    pub webhook: Option<String>,
    /// Fallback URL of that server.
    pub fallback: Option<String>,
    /// Status callback URL of that server.
    pub status_callback: Option<String>,
    /// Port of the emulator; `None` is 8081 or the next free port, 0 any free port.
    pub emulator_port: Option<u16>,
    /// Port of the app; `None` is 8080 or the next free port, 0 any free port.
    pub port: Option<u16>,
    /// Public URL of a tunnel to the app, which then also accepts the real account's webhooks for this URL.
    ///
    /// They are verified with `TWILIO_AUTH_TOKEN` or `TWILIO_AUTH_TOKEN_SECONDARY`, or with a shared key of the account.
    /// The emulator does not use these keys.
    pub tunnel_url: Option<String>,
    /// Folder to record pseudonymised conversations in, for replay with the test kit.
    pub record_dir: Option<PathBuf>,
    /// Folder with the files that messages may refer to by path; `None` is the working directory.
    pub media_dir: Option<PathBuf>,
    /// SID and auth token of the emulated account; `None` generates them.
    ///
    /// Never those of a real account, which any local page could then have requests signed with.
    pub account: Option<(AccountSid, Secret)>,
    /// Requires the key of this run for the emulator's control interface and page.
    ///
    /// [`Emulator::page_url`](crate::emulator::Emulator::page_url) contains the key.
    pub protect: bool,
    /// Installs logging as the app's settings configure it, unless the process has a subscriber. True by default.
    pub logs: bool,
    /// Opens the private listener on loopback, if `admin.listen` is set. Only the port of that setting is used.
    pub admin_listener: bool,
    /// Clock of the emulator and the app; `None` is the system clock, which can be advanced.
    pub clock: Option<Arc<dyn Advance>>,
}

impl Default for DevServerOptions {
    fn default() -> Self {
        Self {
            webhook: None,
            fallback: None,
            status_callback: None,
            emulator_port: None,
            port: None,
            tunnel_url: None,
            record_dir: None,
            media_dir: None,
            account: None,
            protect: false,
            logs: true,
            admin_listener: false,
            clock: None,
        }
    }
}

/// Redacts passwords in URLs.
impl fmt::Debug for DevServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redacted = |url: &Option<String>| url.as_deref().map(redacted_url);
        f.debug_struct("DevServerOptions")
            .field("webhook", &redacted(&self.webhook))
            .field("fallback", &redacted(&self.fallback))
            .field("status_callback", &redacted(&self.status_callback))
            .field("emulator_port", &self.emulator_port)
            .field("port", &self.port)
            .field("tunnel_url", &redacted(&self.tunnel_url))
            .field("record_dir", &self.record_dir)
            .field("media_dir", &self.media_dir)
            .field("protect", &self.protect)
            .finish_non_exhaustive()
    }
}
