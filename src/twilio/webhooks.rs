//! Which webhooks a number or a sender has at Twilio.

use std::fmt;

/// URLs as they are entered, fragment included; what is empty is `None`.
///
/// ```
/// use replyhook::twilio::ConfiguredWebhooks;
///
/// let url = |text: &str| Some(text.to_owned());
/// let webhooks = ConfiguredWebhooks::new(url("https://bot.example.com/webhook#rc=2"), url(""), None);
/// assert!(webhooks.inbound.is_some() && webhooks.fallback.is_none());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfiguredWebhooks {
    /// For a message that comes in.
    pub inbound: Option<String>,
    /// For what the first one could not answer.
    pub fallback: Option<String>,
    /// For what becomes of messages that go out.
    pub status: Option<String>,
}

impl ConfiguredWebhooks {
    /// These URLs; what is empty is none.
    pub fn new(inbound: Option<String>, fallback: Option<String>, status: Option<String>) -> Self {
        let set = |url: Option<String>| url.filter(|url| !url.trim().is_empty());
        Self {
            inbound: set(inbound),
            fallback: set(fallback),
            status: set(status),
        }
    }
}

/// Which are set: a URL may hold a password.
impl fmt::Debug for ConfiguredWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredWebhooks")
            .field("inbound", &self.inbound.is_some())
            .field("fallback", &self.fallback.is_some())
            .field("status", &self.status.is_some())
            .finish()
    }
}
