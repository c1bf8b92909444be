//! Options of the emulator.

use std::fmt;
use std::path::PathBuf;

use replyhook_core::Secret;
use replyhook_core::redact::redacted_url;
use replyhook_core::sid::AccountSid;

/// Options of an [`Emulator`](super::Emulator): the webhook URLs to call, and folders for media and recordings.
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
    /// SID and auth token of the account. Default: new ones.
    ///
    /// Never those of a real account, which any local page could then have requests signed with.
    pub account: Option<(AccountSid, Secret)>,
    /// Requires an access key for the control API and the page. [`Emulator::page_url`](super::Emulator::page_url) contains the key of
    /// this run.
    pub protect: bool,
    /// Answers opt-out keywords on SMS and RCS and blocks users, as Twilio does by default. False for an account whose
    /// keywords are switched off at Twilio.
    pub handles_opt_outs: bool,
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
            account: None,
            protect: false,
            handles_opt_outs: true,
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
            .field("account", &self.account)
            .field("protect", &self.protect)
            .field("handles_opt_outs", &self.handles_opt_outs)
            .finish()
    }
}
