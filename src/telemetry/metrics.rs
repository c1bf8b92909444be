//! Metrics of a server: [`TABLE`] lists all of them with name, unit, labels and meaning.
//!
//! Each [`Metrics`] has its own registry, so two servers in one process count separately. Handles are created once, so
//! counting a message is an atomic addition.

use std::fmt;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

pub use super::outcome::{Endpoint, Outcome};
use crate::clock::Timestamp;
use crate::error_code::ErrorCode;
use crate::message::MessageStatus;
use crate::signature::AuthTokenKind;
use crate::store::{BacklogStats, DeadReason, EventStats, OutboxStats, SendOutcome};

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
    /// Prometheus name.
    pub name: &'static str,
    /// Unit: `s` for seconds, `1` for counts.
    pub unit: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Help text, shown by Prometheus.
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident = $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)+) => {
        $(const $constant: Metric = Metric { name: $name, unit: $unit, labels: &[$($label),*], help: $help };)+

        /// All metrics, one row per metric.
        pub const TABLE: &[Metric] = &[$($constant),+];
    };
}

table! {
    WEBHOOKS = "replyhook_webhooks_total", "1", ["endpoint", "outcome"], "Requests to the webhook endpoints, by endpoint and outcome.";
    WEBHOOK_SECONDS = "replyhook_webhook_duration_seconds", "s", ["endpoint"], "Time from a request's head to its response.";
    HANDLER_SECONDS = "replyhook_handler_duration_seconds", "s", [], "Run time of handlers, including those that missed the deadline.";
    HANDLERS_RUNNING = "replyhook_handlers_running", "1", [], "Handlers that are running, including those that missed the deadline.";
    REQUESTS_IN_FLIGHT = "replyhook_requests_in_flight", "1", [], "Requests to the webhooks and to /media in progress, verified or not.";
    CONNECTIONS = "replyhook_connections", "1", [], "Open connections of the public listener.";
    CONNECTIONS_LIMIT = "replyhook_connections_limit", "1", [], "Maximum number of open connections of the public listener.";
    CONNECTIONS_EVICTED = "replyhook_connections_evicted_total", "1", [], "Connections closed for new ones at the connection limit.";
    UNVERIFIED_DROPPED = "replyhook_unverified_requests_dropped_total", "1", [], "Requests dropped because the unverified bytes of all requests exceeded server.unverified_bytes.";
    ACCEPT_ERRORS = "replyhook_accept_errors_total", "1", [], "Connections that could not be accepted, for example because file descriptors ran out.";
    MALFORMED_REQUESTS = "replyhook_malformed_requests_total", "1", [], "Requests rejected before routing: invalid HTTP/1.1, a head over the limit, not exactly one Host, or a transfer coding other than chunked.";
    UNROUTED = "replyhook_unrouted_requests_total", "1", [], "Requests to an unknown path (404).";
    VERIFIED_REQUESTS = "replyhook_verified_requests_total", "1", ["auth_token"], "Verified requests, by the auth token or shared key that signed them.";
    REPLIES = "replyhook_replies_total", "1", ["outcome"], "Results of sending messages via the REST API: sent, retry, failed, unknown, held.";
    REPLY_ERRORS = "replyhook_reply_errors_total", "1", ["error_code"], "Messages that failed via the REST API, or that Twilio reported as undelivered, by Twilio's error code.";
    REPLIES_SUPPRESSED = "replyhook_replies_suppressed_total", "1", [], "TwiML replies not sent because the user opted out while the handler ran.";
    REPLIES_SUPERSEDED = "replyhook_replies_superseded_total", "1", [], "Replies not sent because the message already had one.";
    REPLIES_TRUNCATED = "replyhook_replies_truncated_total", "1", [], "Replies cut because they had more messages than reply.max_messages.";
    TYPING_INDICATORS = "replyhook_typing_indicators_total", "1", ["outcome"], "Typing indicators, by outcome: sent, failed.";
    BACKLOG_PROCESSED = "replyhook_backlog_processed_total", "1", [], "Messages handled without a waiting request: deferred before their turn, or left by a process that ended.";
    LATE_FAILURES = "replyhook_late_failures_total", "1", [], "Handlers that failed when no request waited any more. Their users get no reply unless the message is retried.";
    DEAD_MESSAGES = "replyhook_dead_messages_total", "1", ["reason"], "Dead messages, by reason: crashed, handler_failed, handler_panicked, unreadable, or expired if their content was deleted before a reply.";
    MESSAGES = "replyhook_messages", "1", ["state"], "Inbound messages without a reply, by state: received, processing, deferred.";
    MESSAGES_OLDEST = "replyhook_messages_oldest_seconds", "s", [], "Age of the oldest inbound message without a reply.";
    OUTBOX = "replyhook_outbox", "1", ["state"], "Messages waiting to be sent via the REST API, by state: pending, unknown, held.";
    OUTBOX_OLDEST = "replyhook_outbox_oldest_seconds", "s", [], "Time since the oldest message in the outbox was due.";
    EVENTS = "replyhook_events", "1", [], "Events that wait for delivery to handler.events_url.";
    EVENTS_OLDEST = "replyhook_events_oldest_seconds", "s", [], "Age of the oldest event that waits for delivery.";
    EVENTS_STOPPED = "replyhook_events_stopped", "1", [], "1 if the service has responded with 410, so that it gets no more events, else 0.";
    EVENT_DELIVERIES = "replyhook_event_deliveries_total", "1", ["outcome"], "Deliveries of events, by outcome: delivered, retry, gone, and dropped for an event that was not taken for 24 hours.";
    API_REQUESTS = "replyhook_api_requests_total", "1", ["route", "status"], "Requests to the HTTP API, by path template and class of the response's status, such as 2xx. An unknown path is the route other.";
    STORE_ERRORS = "replyhook_store_errors_total", "1", ["operation"], "Failed store operations.";
    STORE_UP = "replyhook_store_up", "1", [], "1 if the store accepts messages, else 0. Checked every three seconds, even without traffic.";
    UNFLUSHED_FALLBACK_REPLIES = "replyhook_unflushed_fallback_replies", "1", [], "Replies to fallback calls that were sent while the store was unavailable and are not yet in the journal.";
    CONSENT_CHANGES = "replyhook_consent_changes_total", "1", ["kind"], "Opt-out, opt-in and help keywords of users, by kind: opt_out, opt_in, help.";
    MESSAGES_BLOCKED = "replyhook_messages_blocked_total", "1", ["reason"], "Messages not passed to the handler, by reason: own_number, loop (the message that starts a mute), muted, rate.";
    INVALID_XML_CHARS = "replyhook_invalid_xml_chars_total", "1", [], "Characters of replies that XML cannot contain, replaced by U+FFFD on both reply paths.";
    BACKGROUND_FAILURES = "replyhook_background_failures_total", "1", ["task"], "Background tasks that ended and were restarted, and units of background work that panicked and were set aside. Each is a bug in replyhook.";
    STATUS_UPDATES = "replyhook_status_updates_total", "1", ["status"], "Status callbacks, by status.";
    FALLBACKS = "replyhook_fallback_calls_total", "1", ["error_code"], "Verified fallback calls, by Twilio's error code.";
    RELOADS = "replyhook_reloads_total", "1", ["outcome"], "Reloads of the settings, by outcome: applied, rejected.";
    BUILD_INFO = "replyhook_build_info", "1", ["version"], "Always 1. The label is the version.";
}

/// Metrics of one server.
///
/// ```
/// use replyhook::telemetry::metrics::Metrics;
///
/// assert!(Metrics::new().render().contains("replyhook_build_info"));
/// ```
pub struct Metrics {
    registry: Registry,
    /// One counter per endpoint and outcome, in the order of both enums.
    webhooks: Vec<IntCounter>,
    webhook_duration: Vec<Histogram>,
    verified_requests: [IntCounter; 4],
    pub(crate) handler_duration: Histogram,
    pub(crate) handlers_running: IntGauge,
    pub(crate) requests_in_flight: IntGauge,
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
    pub(crate) connections_evicted: IntCounter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) unverified_dropped: IntCounter,
    pub(crate) unrouted: IntCounter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) accept_errors: IntCounter,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "the accept loop counts them")
    )]
    pub(crate) malformed_requests: IntCounter,
    replies: Vec<IntCounter>,
    /// Replies to a user who opted out while the handler ran.
    pub(crate) suppressed: IntCounter,
    /// Replies to messages that already had one.
    pub(crate) replies_superseded: IntCounter,
    pub(crate) replies_truncated: IntCounter,
    typing_indicators: [IntCounter; 2],
    pub(crate) backlog_processed: IntCounter,
    /// Handlers that failed when no request waited any more.
    pub(crate) late_failures: IntCounter,
    messages: [Gauge; 3],
    messages_oldest: Gauge,
    outbox: [Gauge; 3],
    outbox_oldest: Gauge,
    events: Gauge,
    events_oldest: Gauge,
    events_stopped: Gauge,
    event_deliveries: IntCounterVec,
    api_requests: IntCounterVec,
    unflushed_fallback_replies: Gauge,
    pub(crate) store_up: Gauge,
    reloads: [IntCounter; 2],
    pub(crate) invalid_xml_chars: IntCounter,
    // These are looked up by label at each event, which takes a lock: the events are rare, or the label has many values.
    messages_blocked: IntCounterVec,
    background_failures: IntCounterVec,
    dead_messages: IntCounterVec,
    status_updates: IntCounterVec,
    fallbacks: IntCounterVec,
    reply_errors: IntCounterVec,
    store_errors: IntCounterVec,
    consent_changes: IntCounterVec,
}

const REPLY_OUTCOMES: [&str; 5] = ["sent", "retry", "failed", "unknown", "held"];
/// Values of the label of `replyhook_background_failures_total`.
const BACKGROUND_TASKS: [&str; 9] = [
    "stats",
    "store_check",
    "expiry",
    "backlog",
    "message",
    "outbox",
    "cancel_scheduled",
    "events",
    "reload",
];
/// Classes of the statuses with which the HTTP API responds.
const STATUS_CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];
const BLOCK_REASONS: [&str; 6] = [
    "own_number",
    "loop",
    "muted",
    "rate",
    "blocked",
    "not_allowed",
];
// Up to the 15 seconds after which Twilio abandons a webhook.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
];

impl Metrics {
    /// Creates a registry. Series with fixed labels start at zero, so that `rate` and `increase` see their first
    /// change.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |metric| register(&registry, IntCounter::with_opts(opts(metric)));
        let counters =
            |metric: Metric| register(&registry, IntCounterVec::new(opts(metric), metric.labels));
        let int_gauge = |metric| register(&registry, IntGauge::with_opts(opts(metric)));
        let gauge = |metric| register(&registry, Gauge::with_opts(opts(metric)));
        let gauges =
            |metric: Metric| register(&registry, GaugeVec::new(opts(metric), metric.labels));
        let buckets = |metric| HistogramOpts::from(opts(metric)).buckets(BUCKETS.to_vec());

        gauges(BUILD_INFO)
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        // A lookup creates the series, so these start at zero.
        let messages_blocked = counters(MESSAGES_BLOCKED);
        for reason in BLOCK_REASONS {
            messages_blocked.with_label_values(&[reason]);
        }
        let background_failures = counters(BACKGROUND_FAILURES);
        for task in BACKGROUND_TASKS {
            background_failures.with_label_values(&[task]);
        }
        let event_deliveries = counters(EVENT_DELIVERIES);
        for outcome in ["delivered", "retry", "gone", "dropped"] {
            event_deliveries.with_label_values(&[outcome]);
        }
        let dead_messages = counters(DEAD_MESSAGES);
        for reason in DeadReason::ALL {
            dead_messages.with_label_values(&[reason.as_str()]);
        }
        let webhooks = counters(WEBHOOKS);
        let webhooks = Endpoint::ALL.iter().flat_map(|endpoint| {
            Outcome::ALL
                .iter()
                .map(|outcome| webhooks.with_label_values(&[endpoint.as_str(), outcome.as_str()]))
        });
        let webhook_duration = register(
            &registry,
            HistogramVec::new(buckets(WEBHOOK_SECONDS), WEBHOOK_SECONDS.labels),
        );
        let verified_requests = counters(VERIFIED_REQUESTS);
        let (replies, reloads) = (counters(REPLIES), counters(RELOADS));
        let typing_indicators = counters(TYPING_INDICATORS);
        let (messages, outbox) = (gauges(MESSAGES), gauges(OUTBOX));
        Self {
            webhooks: webhooks.collect(),
            webhook_duration: Endpoint::ALL
                .iter()
                .map(|endpoint| webhook_duration.with_label_values(&[endpoint.as_str()]))
                .collect(),
            verified_requests: [
                AuthTokenKind::Primary,
                AuthTokenKind::Secondary,
                AuthTokenKind::Subaccount,
                AuthTokenKind::SharedKey,
            ]
            .map(|token| verified_requests.with_label_values(&[token_name(token)])),
            handler_duration: register(&registry, Histogram::with_opts(buckets(HANDLER_SECONDS))),
            handlers_running: int_gauge(HANDLERS_RUNNING),
            requests_in_flight: int_gauge(REQUESTS_IN_FLIGHT),
            connections: gauge(CONNECTIONS),
            connections_limit: gauge(CONNECTIONS_LIMIT),
            connections_evicted: counter(CONNECTIONS_EVICTED),
            unverified_dropped: counter(UNVERIFIED_DROPPED),
            accept_errors: counter(ACCEPT_ERRORS),
            malformed_requests: counter(MALFORMED_REQUESTS),
            unrouted: counter(UNROUTED),
            replies: REPLY_OUTCOMES
                .iter()
                .map(|outcome| replies.with_label_values(&[outcome]))
                .collect(),
            suppressed: counter(REPLIES_SUPPRESSED),
            replies_superseded: counter(REPLIES_SUPERSEDED),
            replies_truncated: counter(REPLIES_TRUNCATED),
            typing_indicators: ["sent", "failed"]
                .map(|outcome| typing_indicators.with_label_values(&[outcome])),
            backlog_processed: counter(BACKLOG_PROCESSED),
            late_failures: counter(LATE_FAILURES),
            messages: ["received", "processing", "deferred"]
                .map(|state| messages.with_label_values(&[state])),
            messages_oldest: gauge(MESSAGES_OLDEST),
            outbox: ["pending", "unknown", "held"].map(|state| outbox.with_label_values(&[state])),
            outbox_oldest: gauge(OUTBOX_OLDEST),
            events: gauge(EVENTS),
            events_oldest: gauge(EVENTS_OLDEST),
            events_stopped: gauge(EVENTS_STOPPED),
            event_deliveries,
            api_requests: counters(API_REQUESTS),
            unflushed_fallback_replies: gauge(UNFLUSHED_FALLBACK_REPLIES),
            store_up: gauge(STORE_UP),
            reloads: ["applied", "rejected"].map(|outcome| reloads.with_label_values(&[outcome])),
            invalid_xml_chars: counter(INVALID_XML_CHARS),
            messages_blocked,
            background_failures,
            dead_messages,
            status_updates: counters(STATUS_UPDATES),
            fallbacks: counters(FALLBACKS),
            reply_errors: counters(REPLY_ERRORS),
            store_errors: counters(STORE_ERRORS),
            consent_changes: counters(CONSENT_CHANGES),
            registry,
        }
    }

    // `webhooks` has one row per endpoint. The indices match because both `ALL` lists are in the order of their enum.
    pub(crate) fn webhook(&self, endpoint: Endpoint, outcome: Outcome, seconds: f64) {
        self.webhooks[endpoint as usize * Outcome::ALL.len() + outcome as usize].inc();
        self.webhook_duration[endpoint as usize].observe(seconds);
    }

    pub(crate) fn outcomes(&self, endpoint: Endpoint) -> impl Iterator<Item = (Outcome, u64)> {
        let counters = &self.webhooks[endpoint as usize * Outcome::ALL.len()..];
        (Outcome::ALL.iter().copied()).zip(counters.iter().map(IntCounter::get))
    }

    // The indices are those of the array in `new`.
    pub(crate) fn verified_request(&self, token: AuthTokenKind) {
        self.verified_requests[match token {
            AuthTokenKind::Primary => 0,
            AuthTokenKind::Secondary => 1,
            AuthTokenKind::Subaccount => 2,
            AuthTokenKind::SharedKey => 3,
        }]
        .inc();
    }

    pub(crate) fn typing_indicator(&self, is_sent: bool) {
        self.typing_indicators[usize::from(!is_sent)].inc();
    }

    /// Counts a status callback.
    // An unknown status counts as `other`: each label value is a series of its own, so their number must stay limited.
    pub(crate) fn status_update(&self, status: &MessageStatus) {
        let status = match status {
            MessageStatus::Other(_) => "other",
            known => known.as_str(),
        };
        self.status_updates.with_label_values(&[status]).inc();
    }

    pub(crate) fn fallback_call(&self, code: Option<ErrorCode>) {
        count_by_code(&self.fallbacks, code);
    }

    /// Counts a message that Twilio accepted and did not deliver.
    pub(crate) fn undelivered(&self, code: Option<ErrorCode>) {
        count_by_code(&self.reply_errors, code);
    }

    /// Counts the result of sending a message.
    pub(crate) fn reply(&self, outcome: &SendOutcome) {
        let index = match outcome {
            SendOutcome::Sent { .. } => 0,
            SendOutcome::Retry { .. }
            | SendOutcome::RetryOnce { .. }
            | SendOutcome::RetryAsText { .. } => 1,
            SendOutcome::Failed { .. } => 2,
            // No result: no call was made yet, or a lookup found nothing for a message that is counted as unknown already.
            SendOutcome::Prepared
            | SendOutcome::Unknown {
                looked_up: true, ..
            } => return,
            SendOutcome::Unknown {
                looked_up: false, ..
            } => 3,
            SendOutcome::Held => 4,
        };
        self.replies[index].inc();
        if let SendOutcome::Failed { code, .. } = outcome {
            count_by_code(&self.reply_errors, *code);
        }
    }

    /// Sets the gauges of the outbox.
    pub(crate) fn outbox(&self, stats: &OutboxStats, now: Timestamp) {
        set_gauges(&self.outbox, [stats.pending, stats.unknown, stats.held]);
        self.outbox_oldest.set(age_seconds(stats.oldest, now));
    }

    /// Sets the gauges of inbound messages without a reply.
    pub(crate) fn messages(&self, stats: &BacklogStats, now: Timestamp) {
        set_gauges(
            &self.messages,
            [stats.received, stats.processing, stats.deferred],
        );
        self.messages_oldest.set(age_seconds(stats.oldest, now));
    }

    /// Sets the gauges of events.
    pub(crate) fn events(&self, stats: &EventStats, now: Timestamp) {
        set_gauges(std::slice::from_ref(&self.events), [stats.pending]);
        self.events_oldest.set(age_seconds(stats.oldest, now));
    }

    pub(crate) fn set_events_stopped(&self, is_stopped: bool) {
        self.events_stopped.set(f64::from(u8::from(is_stopped)));
    }

    /// Counts a delivery of an event.
    pub(crate) fn event_delivery(&self, outcome: &'static str) {
        self.event_deliveries.with_label_values(&[outcome]).inc();
    }

    /// Creates the series of a route of the HTTP API, so that they start at zero.
    pub(crate) fn add_api_route(&self, route: &str) {
        for class in STATUS_CLASSES {
            self.api_requests.with_label_values(&[route, class]);
        }
    }

    /// Counts a request to the HTTP API. `route` is a template, which has no address of a user.
    pub(crate) fn api_request(&self, route: &str, status: http::StatusCode) {
        let class = match status.as_u16() {
            ..400 => STATUS_CLASSES[0],
            400..500 => STATUS_CLASSES[1],
            500.. => STATUS_CLASSES[2],
        };
        self.api_requests.with_label_values(&[route, class]).inc();
    }

    /// Counts events that were not taken in time.
    pub(crate) fn events_dropped(&self, number: u64) {
        let dropped = self.event_deliveries.with_label_values(&["dropped"]);
        dropped.inc_by(number);
    }

    /// Sets the number of fallback replies that are not yet in the journal.
    pub(crate) fn set_outage_replies(&self, number: usize) {
        set_gauges(
            std::slice::from_ref(&self.unflushed_fallback_replies),
            [number as u64],
        );
    }

    /// Counts a failed store operation.
    pub(crate) fn store_error(&self, operation: &'static str) {
        self.store_errors.with_label_values(&[operation]).inc();
    }

    /// Counts an opt-out, opt-in or help keyword.
    pub(crate) fn consent(&self, kind: &'static str) {
        self.consent_changes.with_label_values(&[kind]).inc();
    }

    /// Counts a reload of the settings.
    pub(crate) fn reload(&self, is_applied: bool) {
        self.reloads[usize::from(!is_applied)].inc();
    }

    /// Counts a dead message.
    pub(crate) fn dead_message(&self, reason: DeadReason) {
        self.dead_messages
            .with_label_values(&[reason.as_str()])
            .inc();
    }

    /// Counts a message that was not passed to the handler.
    pub(crate) fn message_blocked(&self, reason: &'static str) {
        // A reason that is not in the list would not start at zero.
        debug_assert!(BLOCK_REASONS.contains(&reason));
        self.messages_blocked.with_label_values(&[reason]).inc();
    }

    /// Counts a background task that ended, or a unit of its work that panicked.
    pub(crate) fn background_failure(&self, task: &'static str) {
        debug_assert!(BACKGROUND_TASKS.contains(&task));
        self.background_failures.with_label_values(&[task]).inc();
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("the registry leaves out metrics without series")
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

fn set_gauges<const N: usize>(gauges: &[Gauge], numbers: [u64; N]) {
    for (gauge, number) in gauges.iter().zip(numbers) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        gauge.set(number as f64);
    }
}

/// Returns the seconds since `oldest`, or 0 if there is none.
fn age_seconds(oldest: Option<Timestamp>, now: Timestamp) -> f64 {
    // Not negative if the clock was set back, or the outbox's oldest message is due in the future.
    let age = oldest.map(|oldest| now.duration_since(oldest).as_secs_f64());
    age.unwrap_or_default().max(0.0)
}

/// Counts by Twilio's error code. A missing or unknown code counts as `other`, to limit the number of series.
fn count_by_code(counters: &IntCounterVec, code: Option<ErrorCode>) {
    let code = code.filter(|code| code.meaning().is_some());
    let label = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
    counters.with_label_values(&[label]).inc();
}

fn opts(metric: Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

/// Adds a new collector to the registry and returns it.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    created: prometheus::Result<C>,
) -> C {
    let collector = created.expect("the table has valid names and help texts");
    registry
        .register(Box::new(collector.clone()))
        .expect("each metric is registered once");
    collector
}

fn token_name(token: AuthTokenKind) -> &'static str {
    match token {
        AuthTokenKind::Primary => "primary",
        AuthTokenKind::Secondary => "secondary",
        AuthTokenKind::Subaccount => "subaccount",
        AuthTokenKind::SharedKey => "shared_key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_table_entries_are_rendered_with_help() {
        let metrics = Metrics::new();
        metrics.webhook(Endpoint::Status, Outcome::Ok, 0.1);
        metrics.handler_duration.observe(0.1);
        metrics.status_update(&MessageStatus::Other("x".into()));
        metrics.fallback_call(None);
        metrics.undelivered(None);
        metrics.store_error("accept");
        metrics.consent("opt_out");
        metrics.add_api_route("other");
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
