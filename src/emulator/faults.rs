//! How the emulator misbehaves when it is told to.

use serde::{Deserialize, Serialize};

use super::overrides::Overrides;

/// What goes wrong until it is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Faults {
    /// Deliveries of each message beyond the first.
    pub(super) duplicate: u32,
    /// What is tried again, once: a list of `4xx 5xx ct rt all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<String>,
    /// Calls of the primary webhook break off before their answer is read.
    pub(super) drop_connection: bool,
    /// Milliseconds by which answers of webhooks come later.
    pub(super) delay_ms: u64,
    /// Status callbacks come in the wrong order.
    pub(super) reorder_status: bool,
    /// REST calls that are answered with an error.
    pub(super) rest_error: Option<RestFault>,
    /// Media that is not there yet: so many fetches find nothing.
    pub(super) media_404: u32,
    /// Milliseconds that our own server's handler takes longer.
    pub(super) handler_ms: u64,
    /// Our own server's handler fails.
    pub(super) handler_fails: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestFault {
    /// HTTP status.
    pub(super) status: u16,
    /// Twilio's code; without one, 20000 and the status.
    #[serde(default)]
    pub(super) code: Option<u32>,
    /// How many calls; without a number, all.
    #[serde(default)]
    pub(super) times: Option<u32>,
}

/// More deliveries than any test needs.
const MOST_DUPLICATES: u32 = 100;
/// Twilio waits 15 seconds; a handler may have two minutes.
const LONGEST_MS: u64 = 600_000;

impl Faults {
    /// What cannot be meant, in a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        let retry_is_known = |words: &str| Overrides::parse("").0.retry_on(words);
        if self.duplicate > MOST_DUPLICATES {
            return Some(format!("duplicate: at most {MOST_DUPLICATES}"));
        }
        if self
            .retry
            .as_deref()
            .is_some_and(|words| !retry_is_known(words))
        {
            return Some("retry: a list of 4xx, 5xx, ct, rt, all, as in \"ct,5xx\"".to_owned());
        }
        if self.delay_ms.max(self.handler_ms) > LONGEST_MS {
            return Some(format!("delay_ms, handler_ms: at most {LONGEST_MS}"));
        }
        let status = self.rest_error.as_ref().map(|fault| fault.status);
        if status.is_some_and(|status| !(400..600).contains(&status)) {
            return Some("rest_error.status: 400 to 599".to_owned());
        }
        None
    }

    /// The error of the next REST call, if it is to have one.
    pub(super) fn next_rest_error(&mut self) -> Option<RestFault> {
        let fault = self.rest_error.clone()?;
        if let Some(times) = fault.times {
            let left = times.checked_sub(1);
            self.rest_error = left.filter(|left| *left > 0).map(|left| RestFault {
                times: Some(left),
                ..fault.clone()
            });
            left?;
        }
        Some(fault)
    }

    /// Whether the next fetch of media finds nothing.
    pub(super) fn next_media_is_missing(&mut self) -> bool {
        let left = self.media_404.checked_sub(1);
        self.media_404 = left.unwrap_or_default();
        left.is_some()
    }
}
