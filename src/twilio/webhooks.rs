//! The webhooks of a number, sender or Messaging Service at Twilio: [`ConfiguredWebhooks`] and their [`WebhookMethods`].

use std::fmt;

/// Webhook URLs of a number, sender or Messaging Service as configured at Twilio, including the fragment. A URL that is not set is `None`.
///
/// `Debug` shows only which URLs are set.
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
    /// URL for inbound messages.
    pub inbound: Option<String>,
    /// URL that Twilio calls when the inbound webhook failed.
    pub fallback: Option<String>,
    /// URL of status callbacks for outbound messages.
    pub status: Option<String>,
}

impl ConfiguredWebhooks {
    /// Creates webhooks from URLs. A blank URL counts as not set.
    pub fn new(inbound: Option<String>, fallback: Option<String>, status: Option<String>) -> Self {
        // An empty URL in Twilio's response means that none is set.
        let non_blank = |url: Option<String>| url.filter(|url| !url.trim().is_empty());
        Self {
            inbound: non_blank(inbound),
            fallback: non_blank(fallback),
            status: non_blank(status),
        }
    }
}

// A URL may contain a password, so `Debug` shows only which URLs are set.
impl fmt::Debug for ConfiguredWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredWebhooks")
            .field("inbound", &self.inbound.is_some())
            .field("fallback", &self.fallback.is_some())
            .field("status", &self.status.is_some())
            .finish()
    }
}

/// HTTP methods of webhooks, such as `POST`, or empty if the response has none.
///
/// WhatsApp senders accept `POST` and `PUT`; numbers and Messaging Services accept `GET` and `POST`. Methods are set
/// together with the URLs. See [`ChannelsSenders`](super::ChannelsSenders) for an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookMethods {
    /// Method for inbound messages.
    pub inbound: String,
    /// Method of the fallback webhook.
    pub fallback: String,
    /// Method of status callbacks.
    pub status: String,
}

impl WebhookMethods {
    /// Returns a method, or `POST`, which every resource accepts, if it is not known.
    pub(super) fn or_post(method: &str) -> &str {
        if method.is_empty() { "POST" } else { method }
    }
}
