//! [`Readiness`]: the body of `/readyz`.

use serde::{Deserialize, Serialize};

/// Body of `/readyz`: readiness to accept messages, and the checks behind it.
///
/// ```
/// use replyhook::admin::Readiness;
///
/// // From an older version: counts that are missing are read as zero.
/// let body = r#"{"ready": false, "checks": {
///     "store": {"ok": false, "reason": "the store is full"},
///     "draining": false, "rest": "ok", "outbox": {"oldest_s": null, "pending": 0, "held": 2}
/// }}"#;
/// let readiness: Readiness = serde_json::from_str(body)?;
/// assert!(!readiness.ready && !readiness.checks.store.ok);
/// assert_eq!(readiness.checks.outbox.held, 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Readiness {
    /// True if the server can accept messages.
    pub ready: bool,
    /// The checks that decide readiness, and further state.
    pub checks: ReadinessChecks,
}

/// The checks in [`Readiness`]. See there for an example.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReadinessChecks {
    /// State of the store.
    pub store: StoreCheck,
    /// True while the server shuts down.
    pub draining: bool,
    /// State of the background worker: `not started`, `opening`, `running`, `recovering`, `draining` or
    /// `ended`.
    #[serde(default)]
    pub worker: String,
    /// Result of the last call of Twilio's REST API: `ok`, `failing`, or `unknown` before the first call.
    pub rest: String,
    /// Inbound messages without a reply.
    #[serde(default)]
    pub messages: MessagesCheck,
    /// Messages that wait to be sent via the REST API.
    pub outbox: OutboxCheck,
    /// Events that wait for delivery; `None` unless `handler.events_url` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsCheck>,
}

/// State of the store in [`ReadinessChecks`]. See [`Readiness`] for an example.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreCheck {
    /// True if the store accepts messages.
    pub ok: bool,
    /// Reason of a failure.
    pub reason: Option<String>,
    /// Replies to fallback calls that were sent while the store was unavailable, and are not yet in the journal.
    #[serde(default)]
    pub unflushed_fallback_replies: usize,
}

/// Inbound messages without a reply in [`ReadinessChecks`]. See [`Readiness`] for an example.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MessagesCheck {
    /// Age in seconds of the oldest message in one of the first three states below.
    pub oldest_s: Option<i64>,
    /// Messages that wait for their turn in the conversation.
    pub received: u64,
    /// Messages whose handler is running.
    pub processing: u64,
    /// Messages whose reply will be sent via the REST API.
    pub deferred: u64,
    /// Dead messages: they get no reply unless an operator retries them.
    #[serde(default)]
    pub dead: u64,
    /// Messages that got no reply before their content was deleted by age.
    #[serde(default)]
    pub expired_unanswered: u64,
}

/// Events that wait for delivery in [`ReadinessChecks`]. They do not decide readiness. See [`Readiness`] for an example.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventsCheck {
    /// Age in seconds of the oldest event.
    pub oldest_s: Option<i64>,
    /// Number of events.
    pub pending: u64,
    /// True if the service has responded with 410, so that it gets no more events.
    pub stopped: bool,
}

/// State of the outbox in [`ReadinessChecks`]. See [`Readiness`] for an example.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutboxCheck {
    /// Seconds since the first of these messages was due.
    pub oldest_s: Option<i64>,
    /// Messages that will be sent, or looked up in Twilio's list.
    pub pending: u64,
    /// Messages that wait for the operator's decision.
    pub held: u64,
}
