//! Every metric: name, unit, labels and meaning in [`TABLE`], and nothing is recorded that is not in it.
//!
//! Each [`Metrics`] is a registry of its own, so that two servers in one process count apart. Handles are made once:
//! counting on the way of a message is an atomic addition.

use std::fmt;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::clock::Timestamp;
use crate::error_code::ErrorCode;
use crate::message::MessageStatus;
use crate::signature::TokenSlot;
use crate::store::{DeadReason, OpenMessages, OutboxState, Settlement};

/// One row of [`TABLE`].
///
/// ```
/// use replyhook::telemetry::metrics::TABLE;
///
/// let replies = TABLE.iter().find(|metric| metric.name == "replyhook_replies_total").expect("a row");
/// assert_eq!((replies.unit, replies.labels), ("1", &["outcome"][..]));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What one is: `1` where things are counted.
    pub unit: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident = $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)+) => {
        $(const $constant: Metric = Metric { name: $name, unit: $unit, labels: &[$($label),*], help: $help };)+

        /// All metrics.
        pub const TABLE: &[Metric] = &[$($constant),+];
    };
}

table! {
    WEBHOOKS = "replyhook_webhooks_total", "1", ["endpoint", "outcome"], "Requests on the webhook endpoints by what became of them.";
    WEBHOOK_SECONDS = "replyhook_webhook_duration_seconds", "s", ["endpoint"], "Time from a request's head to its answer.";
    HANDLER_SECONDS = "replyhook_handler_duration_seconds", "s", [], "Time a handler took, late ones included.";
    HANDLERS_RUNNING = "replyhook_handlers_running", "1", [], "Handlers running now, late ones included.";
    REQUESTS_IN_FLIGHT = "replyhook_requests_in_flight", "1", [], "Webhook requests being answered now.";
    CONNECTIONS = "replyhook_connections", "1", [], "Open connections of the public listener.";
    CONNECTIONS_LIMIT = "replyhook_connections_limit", "1", [], "Most open connections of the public listener.";
    CONNECTIONS_EVICTED = "replyhook_connections_evicted_total", "1", [], "Connections closed for new ones because the limit was reached.";
    UNVERIFIED_DROPPED = "replyhook_unverified_requests_dropped_total", "1", [], "Requests dropped because all together had too many unverified bytes.";
    ACCEPT_ERRORS = "replyhook_accept_errors_total", "1", [], "Connections that could not be accepted, as when file descriptors run out.";
    MALFORMED_REQUESTS = "replyhook_malformed_requests_total", "1", [], "Requests that are no HTTP/1.1, have too large a head, not exactly one Host, or another transfer coding than chunked.";
    UNROUTED = "replyhook_unrouted_requests_total", "1", [], "Requests to a path that is none of the server's (404).";
    TOKEN_SLOTS = "replyhook_verified_requests_total", "1", ["auth_token"], "Verified requests by the token that fitted.";
    REPLIES = "replyhook_replies_total", "1", ["outcome"], "Messages sent by REST by what became of the call: sent, again, failed, unknown, held.";
    REPLY_ERRORS = "replyhook_reply_errors_total", "1", ["error_code"], "Messages by REST that Twilio refused, or said later that it did not deliver, by its error code.";
    REPLIES_SUPPRESSED = "replyhook_replies_suppressed_total", "1", [], "Replies that were not given because their user had opted out meanwhile.";
    REPLIES_LOST = "replyhook_replies_superseded_total", "1", [], "Replies that were not given because the message had been answered elsewhere meanwhile.";
    REPLIES_TRUNCATED = "replyhook_replies_truncated_total", "1", [], "Replies that were cut since they had more messages than reply.max_messages.";
    TAKEN_UP = "replyhook_backlog_processed_total", "1", [], "Messages handled without a request: deferred before their turn, or left behind by a process that ended.";
    LATE_FAILURES = "replyhook_late_failures_total", "1", [], "Handlers that failed when no request waited any more: their users get nothing unless the message is retried.";
    DEAD_MESSAGES = "replyhook_dead_messages_total", "1", ["reason"], "Messages that nobody answers any more: crashed, handler_failed, handler_panicked, unreadable, or expired, when their content was deleted unanswered.";
    MESSAGES = "replyhook_messages", "1", ["state"], "Messages that have no answer yet: received, processing, deferred.";
    MESSAGES_OLDEST = "replyhook_messages_oldest_seconds", "s", [], "Seconds since the oldest of them came.";
    OUTBOX = "replyhook_outbox", "1", ["state"], "Messages that wait to go out by REST: pending, unknown, held.";
    OUTBOX_OLDEST = "replyhook_outbox_oldest_seconds", "s", [], "Seconds since the first of them was due.";
    STORE_ERRORS = "replyhook_store_errors_total", "1", ["operation"], "Failed store operations.";
    STORE_OK = "replyhook_store_up", "1", [], "Whether the store keeps messages: 1 or 0. Checked every three seconds, also without traffic.";
    OUTAGE_ANSWERS = "replyhook_unflushed_fallback_replies", "1", [], "Fallback calls that were answered from memory while the store was away, and are not in the journal yet.";
    CONSENT_CHANGES = "replyhook_consent_changes_total", "1", ["kind"], "Consent words of users: opt_out, opt_in, help.";
    GUARD = "replyhook_messages_blocked_total", "1", ["reason"], "Messages kept from the handler: own_number, loop (the one that begins a mute), muted, rate.";
    CHARACTERS_REPLACED = "replyhook_invalid_xml_chars_total", "1", [], "Characters of replies that XML cannot hold, sent as U+FFFD.";
    STATUS_UPDATES = "replyhook_status_updates_total", "1", ["status"], "Status callbacks by the status they told.";
    FALLBACKS = "replyhook_fallback_calls_total", "1", ["error_code"], "Verified fallback calls by Twilio's error code.";
    BUILD_INFO = "replyhook_build_info", "1", ["version"], "Always 1.";
}

/// The public endpoints.
///
/// ```
/// use replyhook::telemetry::metrics::{Endpoint, Outcome};
///
/// assert_eq!((Endpoint::Primary.as_str(), Outcome::Late.as_str()), ("primary", "late"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/webhook`
    Primary,
    /// `/webhook/fallback`
    Fallback,
    /// `/webhook/status`
    Status,
    /// `/media/{token}`
    Media,
}

impl Endpoint {
    const ALL: [Self; 4] = [Self::Primary, Self::Fallback, Self::Status, Self::Media];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Fallback => "fallback",
            Self::Status => "status",
            Self::Media => "media",
        }
    }
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// What became of a request. As a label: see [`Endpoint`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome { $($(#[$doc])* $variant),+ }

        impl Outcome {
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

outcomes! {
    /// Answered in time, or a status callback that was taken.
    Ok = "ok",
    /// No, no valid or more than one signature.
    RejectedSignature = "rejected_signature",
    /// An account that is not configured.
    RejectedAccount = "rejected_account",
    /// Too large, too slow, or no form.
    RejectedBody = "rejected_body",
    /// A method that Twilio does not use.
    RejectedMethod = "rejected_method",
    /// Verified, and yet no message.
    BadForm = "bad_form",
    /// The handler returned an error.
    HandlerError = "handler_error",
    /// The handler, or the server itself, panicked.
    Panic = "panic",
    /// The handler missed the deadline.
    Late = "late",
    /// The reply does not fit one TwiML document, or goes to somebody else: all of it goes by REST.
    ByRest = "by_rest",
    /// A message that came before, with the answer it got.
    Duplicate = "duplicate",
    /// From somebody who wants nothing from us.
    OptedOut = "opted_out",
    /// A consent word.
    Consent = "consent",
    /// A webhook of Twilio Conversations.
    ConversationEvent = "conversation_event",
    /// Overloaded, draining, not started, or the store did not take it.
    Unavailable = "unavailable",
    /// A verified fallback call, answered.
    Fallback = "fallback",
    /// A signed request of `replyhook doctor`, which is no message.
    Probe = "probe",
    /// No file is behind the link, or not any more.
    NotFound = "not_found",
    /// The peer went away before its answer.
    Disconnected = "disconnected",
}

/// One server's metrics.
///
/// ```
/// use replyhook::telemetry::metrics::Metrics;
///
/// assert!(Metrics::new().render().contains("replyhook_build_info"));
/// ```
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    webhooks: Vec<Counter>,
    webhook_seconds: Vec<Histogram>,
    token_slots: [Counter; 3],
    /// Time a handler took.
    pub(crate) handler_seconds: Histogram,
    pub(crate) handlers_running: Gauge,
    pub(crate) requests_in_flight: Gauge,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) connections: Gauge,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop sets it")
    )]
    pub(crate) connections_limit: Gauge,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) connections_evicted: Counter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) unverified_dropped: Counter,
    pub(crate) unrouted: Counter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) accept_errors: Counter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) malformed_requests: Counter,
    replies: Vec<Counter>,
    /// Replies to somebody who had opted out meanwhile.
    pub(crate) suppressed: Counter,
    /// Replies to what was answered elsewhere.
    pub(crate) replies_lost: Counter,
    /// Replies of too many messages.
    pub(crate) replies_truncated: Counter,
    /// Messages of the backlog.
    pub(crate) taken_up: Counter,
    /// Handlers that failed when nobody could be told.
    pub(crate) late_failures: Counter,
    messages: [Gauge; 3],
    messages_oldest: Gauge,
    outbox: [Gauge; 3],
    outbox_oldest: Gauge,
    outage_answers: Gauge,
    /// 1 where the store takes writes.
    pub(crate) store_ok: Gauge,
    pub(crate) characters_replaced: Counter,
}

const REPLY_OUTCOMES: [&str; 5] = ["sent", "retry", "failed", "unknown", "held"];
const GUARD_REASONS: [&str; 4] = ["own_number", "loop", "muted", "rate"];
const METADATA: Metadata<'static> = Metadata::new("replyhook", Level::INFO, None);
/// Up to Twilio's 15 seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
];

impl Metrics {
    /// An empty registry in which every fixed series stands at zero.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
            .expect("the buckets are not empty")
            .build_recorder();
        for metric in TABLE {
            let (name, help) = (
                KeyName::from_const_str(metric.name),
                SharedString::const_str(metric.help),
            );
            // Kept by name, whatever the kind: that is registered below.
            recorder.describe_gauge(name, None, help);
        }
        let counter = |metric: Metric, values: &[&'static str]| {
            recorder.register_counter(&key(metric, values), &METADATA)
        };
        let gauge = |metric| recorder.register_gauge(&key(metric, &[]), &METADATA);
        let histogram = |metric: Metric, values: &[&'static str]| {
            recorder.register_histogram(&key(metric, values), &METADATA)
        };
        let version = key(BUILD_INFO, &[env!("CARGO_PKG_VERSION")]);
        recorder.register_gauge(&version, &METADATA).set(1.0);
        // Counted by name, because rarely; they stand at zero until then.
        for reason in GUARD_REASONS {
            counter(GUARD, &[reason]).increment(0);
        }
        for reason in DeadReason::ALL {
            counter(DEAD_MESSAGES, &[reason.as_str()]).increment(0);
        }
        let webhooks = Endpoint::ALL.iter().flat_map(|endpoint| {
            Outcome::ALL
                .iter()
                .map(|outcome| counter(WEBHOOKS, &[endpoint.as_str(), outcome.as_str()]))
        });
        Self {
            webhooks: webhooks.collect(),
            webhook_seconds: Endpoint::ALL
                .iter()
                .map(|endpoint| histogram(WEBHOOK_SECONDS, &[endpoint.as_str()]))
                .collect(),
            token_slots: [TokenSlot::Primary, TokenSlot::Secondary, TokenSlot::Account]
                .map(|slot| counter(TOKEN_SLOTS, &[slot_name(slot)])),
            handler_seconds: histogram(HANDLER_SECONDS, &[]),
            handlers_running: gauge(HANDLERS_RUNNING),
            requests_in_flight: gauge(REQUESTS_IN_FLIGHT),
            connections: gauge(CONNECTIONS),
            connections_limit: gauge(CONNECTIONS_LIMIT),
            connections_evicted: counter(CONNECTIONS_EVICTED, &[]),
            unverified_dropped: counter(UNVERIFIED_DROPPED, &[]),
            accept_errors: counter(ACCEPT_ERRORS, &[]),
            malformed_requests: counter(MALFORMED_REQUESTS, &[]),
            unrouted: counter(UNROUTED, &[]),
            replies: REPLY_OUTCOMES
                .iter()
                .map(|outcome| counter(REPLIES, &[outcome]))
                .collect(),
            suppressed: counter(REPLIES_SUPPRESSED, &[]),
            replies_lost: counter(REPLIES_LOST, &[]),
            replies_truncated: counter(REPLIES_TRUNCATED, &[]),
            taken_up: counter(TAKEN_UP, &[]),
            late_failures: counter(LATE_FAILURES, &[]),
            messages: ["received", "processing", "deferred"]
                .map(|state| recorder.register_gauge(&key(MESSAGES, &[state]), &METADATA)),
            messages_oldest: gauge(MESSAGES_OLDEST),
            outbox: ["pending", "unknown", "held"]
                .map(|state| recorder.register_gauge(&key(OUTBOX, &[state]), &METADATA)),
            outbox_oldest: gauge(OUTBOX_OLDEST),
            outage_answers: gauge(OUTAGE_ANSWERS),
            store_ok: gauge(STORE_OK),
            characters_replaced: counter(CHARACTERS_REPLACED, &[]),
            handle: recorder.handle(),
            recorder,
        }
    }

    pub(crate) fn webhook(&self, endpoint: Endpoint, outcome: Outcome, seconds: f64) {
        self.webhooks[endpoint as usize * Outcome::ALL.len() + outcome as usize].increment(1);
        self.webhook_seconds[endpoint as usize].record(seconds);
    }

    pub(crate) fn token_slot(&self, slot: TokenSlot) {
        self.token_slots[match slot {
            TokenSlot::Primary => 0,
            TokenSlot::Secondary => 1,
            TokenSlot::Account => 2,
        }]
        .increment(1);
    }

    /// A status of an unknown name counts as `other`: labels must stay few.
    pub(crate) fn status_update(&self, status: &MessageStatus) {
        let status = match status {
            MessageStatus::Other(_) => "other".to_owned(),
            known => known.as_str().to_owned(),
        };
        self.count(STATUS_UPDATES, status);
    }

    /// Counts by Twilio's code; one that is not in its dictionary, or none, counts as `other`.
    fn coded(&self, metric: Metric, code: Option<ErrorCode>) {
        let code = code.filter(|code| code.meaning().is_some());
        self.count(
            metric,
            code.map_or_else(|| "other".to_owned(), |code| code.to_string()),
        );
    }

    pub(crate) fn fallback_call(&self, code: Option<ErrorCode>) {
        self.coded(FALLBACKS, code);
    }

    /// A message that Twilio took and did not deliver.
    pub(crate) fn undelivered(&self, code: Option<ErrorCode>) {
        self.coded(REPLY_ERRORS, code);
    }

    /// What became of a call.
    pub(crate) fn reply(&self, settlement: &Settlement) {
        let at = match settlement {
            Settlement::Sent { .. } => 0,
            Settlement::Again { .. } => 1,
            Settlement::Failed { .. } => 2,
            Settlement::Unknown { looked: true, .. } => return,
            Settlement::Unknown { looked: false, .. } => 3,
            Settlement::Held => 4,
        };
        self.replies[at].increment(1);
        if let Settlement::Failed { code, .. } = settlement {
            self.coded(REPLY_ERRORS, *code);
        }
    }

    /// How full the outbox is.
    pub(crate) fn outbox(&self, state: &OutboxState, now: Timestamp) {
        set(&self.outbox, [state.pending, state.unknown, state.held]);
        self.outbox_oldest.set(age(state.oldest, now));
    }

    /// How many messages have no answer yet.
    pub(crate) fn messages(&self, open: &OpenMessages, now: Timestamp) {
        set(
            &self.messages,
            [open.received, open.handling, open.deferred],
        );
        self.messages_oldest.set(age(open.oldest, now));
    }

    /// How many answers the journal does not have.
    pub(crate) fn outage_answers(&self, number: usize) {
        set(std::slice::from_ref(&self.outage_answers), [number as u64]);
    }

    /// A step that the store did not take.
    pub(crate) fn store_error(&self, step: &'static str) {
        self.count(STORE_ERRORS, step.to_owned());
    }

    /// A consent word.
    pub(crate) fn consent(&self, kind: &'static str) {
        self.count(CONSENT_CHANGES, kind.to_owned());
    }

    /// Counts a dead message.
    pub(crate) fn dead_message(&self, reason: DeadReason) {
        self.count(DEAD_MESSAGES, reason.as_str().to_owned());
    }

    /// A message that was kept from the handler.
    pub(crate) fn guard(&self, reason: &'static str) {
        debug_assert!(GUARD_REASONS.contains(&reason));
        self.count(GUARD, reason.to_owned());
    }

    fn count(&self, metric: Metric, value: String) {
        let key = Key::from_parts(metric.name, vec![Label::new(metric.labels[0], value)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// All of it in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds the samples of histograms, which would otherwise wait for the next scrape.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn set<const N: usize>(gauges: &[Gauge], numbers: [u64; N]) {
    for (gauge, number) in gauges.iter().zip(numbers) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        gauge.set(number as f64);
    }
}

/// Seconds since the oldest; none has no age.
fn age(oldest: Option<Timestamp>, now: Timestamp) -> f64 {
    let age = oldest.map(|oldest| now.duration_since(oldest).as_secs_f64());
    age.unwrap_or_default().max(0.0)
}

fn key(metric: Metric, values: &[&'static str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len());
    let labels = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::from_static_parts(name, value));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

fn slot_name(slot: TokenSlot) -> &'static str {
    match slot {
        TokenSlot::Primary => "primary",
        TokenSlot::Secondary => "secondary",
        TokenSlot::Account => "account",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_that_is_rendered_is_in_the_table_and_described() {
        let metrics = Metrics::new();
        metrics.webhook(Endpoint::Status, Outcome::Ok, 0.1);
        metrics.handler_seconds.record(0.1);
        metrics.status_update(&MessageStatus::Other("x".into()));
        metrics.fallback_call(None);
        metrics.undelivered(None);
        metrics.store_error("accept");
        metrics.consent("opt_out");
        let text = metrics.render();
        for metric in TABLE {
            assert!(
                text.contains(&format!("# HELP {} ", metric.name)),
                "{}: {text}",
                metric.name
            );
        }
        assert!(
            text.contains(r#"replyhook_webhooks_total{endpoint="status",outcome="ok"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"replyhook_status_updates_total{status="other"} 1"#));
    }
}
