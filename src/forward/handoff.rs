//! `handoff` of a service's response.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::reply::{Reply, ReplyMessage, is_web_url};

/// Maximum time without a message from the user after which a handoff ends, as in the settings.
const MAX_TTL: Duration = Duration::from_hours(720);

/// Handoff in JSON: a URL, or none for a silent bot, and the time after which it ends.
// A missing URL equals null, as for every key.
#[derive(Deserialize)]
pub(super) struct ServiceHandoff {
    url: Option<String>,
    ttl: Option<String>,
    #[serde(flatten)]
    #[expect(
        clippy::zero_sized_map_values,
        reason = "serde(flatten) collects unknown keys into a map"
    )]
    unknown_keys: BTreeMap<String, IgnoredAny>,
}

impl ServiceHandoff {
    /// Reads a handoff; `None` if it is invalid.
    pub(super) fn read(json: serde_json::Value) -> Option<Self> {
        let handoff: Self = serde_json::from_value(json).ok()?;
        let has_valid_url = handoff.url.as_deref().is_none_or(is_web_url);
        let has_valid_ttl = handoff
            .ttl
            .as_deref()
            .is_none_or(|ttl| parse_ttl(ttl).is_some());
        (has_valid_url && has_valid_ttl).then_some(handoff)
    }

    pub(super) fn unknown_keys(&self) -> Vec<String> {
        self.unknown_keys.keys().cloned().collect()
    }

    /// Returns the reply that sends these messages and starts the handoff.
    pub(super) fn into_reply(self, messages: Vec<ReplyMessage>) -> Reply {
        let ttl = self.ttl.as_deref().and_then(parse_ttl);
        // `read` has checked the URL.
        let start = self.url.and_then(|url| Reply::handoff(url).ok());
        let start = start.unwrap_or_else(Reply::silent_handoff);
        let start = match ttl {
            Some(ttl) => start.handoff_ttl(ttl),
            None => start,
        };
        messages.into_iter().fold(start, Reply::and)
    }
}

/// Parses a time such as `12h`, from a second to 30 days.
pub(crate) fn parse_ttl(text: &str) -> Option<Duration> {
    let ttl: SignedDuration = text.trim().parse().ok()?;
    // A negative time does not convert.
    let ttl = Duration::try_from(ttl).ok()?;
    (Duration::from_secs(1)..=MAX_TTL)
        .contains(&ttl)
        .then_some(ttl)
}
