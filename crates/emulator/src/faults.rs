//! Faults that the emulator injects on request.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::api_key::EmulatedApiKey;
use super::content::stored_content::TemplateState;
use super::overrides::Overrides;
use replyhook_core::Secret;
use replyhook_core::signature::{SharedKeyId, SignatureAlgorithm, SigningKey};

/// Active faults: the body of `PUT /_emulator/faults`, which replaces them as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Faults {
    /// Number of further deliveries of each message.
    pub(super) duplicate: u32,
    /// Failures to retry after, instead of those in the URL's fragment: a comma-separated list of `4xx`, `5xx`, `ct`,
    /// `rt` and `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<String>,
    /// Drops connections to the primary webhook before the response is read.
    pub(super) drop_connection: bool,
    /// Delay of webhook responses, in milliseconds.
    pub(super) delay_ms: u64,
    /// Sends status callbacks in reverse order.
    pub(super) reorder_status: bool,
    /// Error response to REST calls.
    pub(super) rest_error: Option<RestFault>,
    /// Number of further fetches of inbound media that get 404.
    pub(super) media_404: u32,
    /// Additional latency of the app's handler, in milliseconds.
    pub(super) handler_ms: u64,
    /// Makes the app's handler fail.
    pub(super) handler_fails: bool,
    /// Error response to calls of the Content API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_error: Option<RestFault>,
    /// Delay of responses of the Content API, in milliseconds.
    pub(super) content_delay_ms: u64,
    /// Number of templates that are deleted when they are next used.
    pub(super) content_lost: u32,
    /// Failure, by status callback, of messages with content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_failure: Option<ContentSendFault>,
    /// State of submitted templates. Default: approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) template_state: Option<TemplateState>,
    /// Time by the emulator's clock that the review of a template takes, in seconds.
    pub(super) template_review_s: u32,
    /// Key that signs webhooks in place of the auth token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shared_key: Option<EmulatedSharedKey>,
    /// The only API key of the account, in place of any key that has the auth token as its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_key: Option<EmulatedApiKey>,
}

/// A shared key of the emulator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmulatedSharedKey {
    pub(super) id: SharedKeyId,
    /// Never in a response: a client that reads the faults must not be able to sign requests. One that changes another fault
    /// may leave it out, see [`Faults::keep_secret`].
    #[serde(default, skip_serializing)]
    pub(super) secret: String,
    /// Default: HMAC-SHA1, and the header does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) algorithm: Option<SignatureAlgorithm>,
}

impl EmulatedSharedKey {
    /// Returns the key with its algorithm.
    pub(super) fn signing_key(&self) -> SigningKey {
        SigningKey::SharedKey {
            id: self.id,
            secret: Secret::new(self.secret.as_str()),
            algorithm: self.algorithm.unwrap_or(SignatureAlgorithm::HmacSha1),
        }
    }

    /// Returns the value of the header that names the key.
    pub(super) fn settings_header(&self) -> String {
        match self.algorithm {
            Some(algorithm) => self.id.settings_header(algorithm),
            None => format!("key={}", self.id),
        }
    }
}

/// Hides the secret.
impl fmt::Debug for EmulatedSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedSharedKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestFault {
    /// HTTP status.
    pub(super) status: u16,
    /// Twilio's error code. Default: 20000 plus `status`.
    #[serde(default)]
    pub(super) code: Option<u32>,
    /// Number of calls that fail. Default: all.
    #[serde(default)]
    pub(super) times: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentSendFault {
    /// Twilio's error code, such as 63005.
    pub(super) code: u32,
    /// Number of messages that fail. Default: all.
    #[serde(default)]
    pub(super) times: Option<u32>,
}

// Bounds a typing error: no test needs more deliveries.
const MAX_DUPLICATES: u32 = 100;
// Ten minutes: well beyond Twilio's 15 seconds and the default of `handler.timeout_ms`, two minutes.
const MAX_DELAY_MS: u64 = 600_000;

impl Faults {
    /// Returns an explanation of the first invalid value.
    pub(super) fn problem(&self) -> Option<String> {
        // On a throw-away value: `set_retry_on` changes what it is called on.
        let is_valid_retry = |words: &str| Overrides::parse("").0.set_retry_on(words);
        if self.duplicate > MAX_DUPLICATES {
            return Some(format!("duplicate: at most {MAX_DUPLICATES}"));
        }
        if self
            .retry
            .as_deref()
            .is_some_and(|words| !is_valid_retry(words))
        {
            return Some("retry: a list of 4xx, 5xx, ct, rt, all, as in \"ct,5xx\"".to_owned());
        }
        let delays = [self.delay_ms, self.handler_ms, self.content_delay_ms];
        if delays.iter().any(|delay| *delay > MAX_DELAY_MS) {
            return Some(format!(
                "delay_ms, handler_ms, content_delay_ms: at most {MAX_DELAY_MS}"
            ));
        }
        for (name, fault) in [
            ("rest_error", &self.rest_error),
            ("content_error", &self.content_error),
        ] {
            let status = fault.as_ref().map(|fault| fault.status);
            if status.is_some_and(|status| !(400..600).contains(&status)) {
                return Some(format!("{name}.status: 400 to 599"));
            }
        }
        let shared_key = self.shared_key.as_ref();
        if shared_key.is_some_and(|key| key.secret.trim().is_empty()) {
            return Some("shared_key.secret: missing or empty".to_owned());
        }
        self.api_key.as_ref().and_then(EmulatedApiKey::problem)
    }

    /// Fills in the secret of a key that is given by its ID or SID alone, if `current` has that key.
    pub(super) fn keep_secret(&mut self, current: &Self) {
        if let (Some(key), Some(known)) = (&mut self.shared_key, &current.shared_key)
            && key.secret.is_empty()
            && key.id == known.id
        {
            key.secret.clone_from(&known.secret);
        }
        if let (Some(key), Some(known)) = (&mut self.api_key, &current.api_key)
            && key.secret.is_empty()
            && key.sid == known.sid
        {
            key.secret.clone_from(&known.secret);
        }
    }

    /// Returns the error to inject into this REST call, if any, and counts it.
    pub(super) fn next_rest_error(&mut self) -> Option<RestFault> {
        take_rest_fault(&mut self.rest_error)
    }

    /// Returns the error to inject into this call of the Content API, if any, and counts it.
    pub(super) fn next_content_error(&mut self) -> Option<RestFault> {
        take_rest_fault(&mut self.content_error)
    }

    /// Returns the code that this message with content fails with, if any, and counts it.
    pub(super) fn take_content_failure(&mut self) -> Option<u32> {
        let fault = self.content_failure.as_mut()?;
        let code = fault.code;
        if let Some(times) = &mut fault.times {
            let is_active = *times > 0;
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.content_failure = None;
            }
            return is_active.then_some(code);
        }
        Some(code)
    }

    /// Returns whether the template that is used now is lost, and counts it.
    pub(super) fn take_content_loss(&mut self) -> bool {
        let remaining = self.content_lost.checked_sub(1);
        self.content_lost = remaining.unwrap_or_default();
        remaining.is_some()
    }

    /// Returns whether this media fetch gets 404, and counts it.
    pub(super) fn take_media_fault(&mut self) -> bool {
        let remaining = self.media_404.checked_sub(1);
        self.media_404 = remaining.unwrap_or_default();
        remaining.is_some()
    }
}

/// Returns the error to inject, if any, and counts it.
fn take_rest_fault(slot: &mut Option<RestFault>) -> Option<RestFault> {
    let fault = slot.clone()?;
    if let Some(times) = fault.times {
        // The last failing call clears the fault. `times: 0` clears it without an error.
        let remaining = times.checked_sub(1);
        *slot = remaining
            .filter(|remaining| *remaining > 0)
            .map(|remaining| RestFault {
                times: Some(remaining),
                ..fault.clone()
            });
        remaining?;
    }
    Some(fault)
}
