//! [`Dispatcher`]: the parts that the processing of a message shares.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::consent_change::ConsentHook;
use super::consent_keywords::ConsentKeywords;
use super::debounce::Debounce;
use super::guard::Guard;
use super::handoff_redirects::HandoffRedirects;
use super::held_messages::HeldMessages;
use super::limits::DispatchLimits;
use super::outage::Outage;
use super::outcome::RejectedReplyHook;
use super::permit::HandlerPermits;
use super::questions::{ChoiceSettings, Questions};
use super::store_monitor::StoreMonitor;
use super::typing::TypingIndicators;
use super::waiting::{Deferred, Waiting};
use crate::address::Address;
use crate::clock::Clock;
use crate::consent::ConsentRules;
use crate::handler::{Files, Handler};
use crate::message::InboundMessage;
use crate::reloadable::Reloadable;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::{NewInbound, Store};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{OptOutLog, StoreReport};
use crate::twiml::Document;

/// Arguments of [`Dispatcher::new`].
pub(crate) struct DispatcherParts {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store_report: StoreReport,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: DispatchLimits,
    pub(crate) choices: ChoiceSettings,
    pub(crate) consent: Reloadable<ConsentRules>,
    pub(crate) guard: Guard,
    pub(crate) fallback: FallbackTexts,
    pub(crate) on_consent: Option<ConsentHook>,
    pub(crate) on_rejected_reply: Option<RejectedReplyHook>,
    pub(crate) opt_out_log: Arc<OptOutLog>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) typing: Arc<TypingIndicators>,
    pub(crate) tasks: TaskTracker,
    /// Wakes the outbox worker.
    pub(crate) outbox: Arc<Notify>,
    /// Wakes the worker that cancels scheduled messages after an opt-out.
    pub(crate) opted_out: Arc<Notify>,
}

/// Everything that the processing of a message needs.
pub(crate) struct Dispatcher {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) store: Arc<dyn Store>,
    pub(crate) monitor: Arc<StoreMonitor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) public_url: PublicUrl,
    pub(super) limits: DispatchLimits,
    pub(super) permits: HandlerPermits,
    pub(crate) consent: ConsentKeywords,
    /// Loop detection and rate limit.
    pub(super) guard: Guard,
    pub(super) handoffs: HandoffRedirects,
    pub(super) questions: Questions,
    pub(super) debounce: Debounce,
    pub(super) fallback: FallbackTexts,
    pub(crate) outage: Outage,
    pub(super) on_rejected_reply: Option<RejectedReplyHook>,
    /// Logs messages of users who have opted out.
    pub(super) opt_out_log: Arc<OptOutLog>,
    /// Media of messages and replies.
    pub(super) files: Arc<dyn Files>,
    pub(super) typing: Arc<TypingIndicators>,
    pub(crate) tasks: TaskTracker,
    pub(super) waiting: Waiting,
    pub(super) deferred: Deferred,
    pub(super) held: HeldMessages,
    /// Wakes the outbox worker.
    pub(super) outbox: Arc<Notify>,
    /// Wakes the backlog.
    pub(super) backlog: Arc<Notify>,
}

/// Reply to a fallback call when the handler fails again.
pub(crate) struct FallbackTexts {
    /// The text as TwiML; empty if none is configured, or if no response has a message.
    pub(crate) twiml: Document,
    /// The text for the REST API, if no response has a message.
    pub(crate) rest: Option<String>,
}

impl FallbackTexts {
    /// Returns the text as saved TwiML, or an empty text if there is none.
    pub(super) fn stored_twiml(&self) -> String {
        self.twiml.to_stored().unwrap_or_default()
    }
}

impl Dispatcher {
    pub(crate) fn new(parts: DispatcherParts) -> Self {
        let (store, clock, metrics, limits) =
            (parts.store, parts.clock, parts.metrics, parts.limits);
        let monitor = StoreMonitor::new(store.clone(), clock.clone(), parts.store_report);
        let monitor = Arc::new(monitor);
        let backlog = Arc::new(Notify::new());
        Self {
            handler: parts.handler,
            public_url: parts.public_url,
            limits,
            permits: HandlerPermits::new(limits.running, metrics.clone()),
            consent: ConsentKeywords {
                rules: parts.consent.clone(),
                hook: parts.on_consent,
                is_rest_only: limits.is_rest_only,
                store: store.clone(),
                monitor: monitor.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                tasks: parts.tasks.clone(),
                outbox: parts.outbox.clone(),
                opted_out: parts.opted_out,
            },
            guard: parts.guard,
            handoffs: HandoffRedirects {
                store: store.clone(),
                monitor: monitor.clone(),
                clock: clock.clone(),
                ttl: limits.handoff_ttl,
            },
            questions: Questions {
                store: store.clone(),
                monitor: monitor.clone(),
                clock: clock.clone(),
                settings: parts.choices,
                consent: parts.consent,
            },
            debounce: Debounce {
                store: store.clone(),
                monitor: monitor.clone(),
                clock: clock.clone(),
                pause: limits.debounce,
            },
            outage: Outage::new(
                parts.fallback.twiml != Document::empty(),
                store.clone(),
                monitor.clone(),
                clock.clone(),
                metrics.clone(),
                backlog.clone(),
            ),
            fallback: parts.fallback,
            on_rejected_reply: parts.on_rejected_reply,
            opt_out_log: parts.opt_out_log,
            files: parts.files,
            typing: parts.typing,
            tasks: parts.tasks,
            waiting: Waiting::default(),
            deferred: Deferred::default(),
            held: HeldMessages::default(),
            outbox: parts.outbox,
            backlog,
            store,
            monitor,
            clock,
            metrics,
        }
    }

    /// Builds the journal entry of a message.
    pub(super) fn new_inbound(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Arc<NewInbound> {
        // The business-scoped IDs are further addresses of the same user: the store ties them to `From`.
        let ids = [&message.external_user_id, &message.parent_external_user_id];
        let ids = ids.into_iter().flatten().filter(|id| **id != message.from);
        Arc::new(NewInbound {
            account: message.account_sid,
            sid: message.message_sid,
            sender: message.to.normalized(),
            user: std::iter::once(&message.from)
                .chain(ids)
                .map(Address::normalized)
                .collect(),
            service: message.messaging_service_sid,
            auth_token,
            params: message.params.as_received().into_owned(),
            consent: self.consent.keyword(message),
            max_attempts: self.limits.crashes.max_attempts,
            retry_after_crash: self.limits.crashes.retry,
            // The store saves and returns this for a redelivery without attempts left.
            final_response: self.fallback.stored_twiml(),
            received_at: message.received_at,
        })
    }

    /// Responds to a fallback call that the store could not accept, and buffers the reply until the store is back.
    pub(crate) fn reply_during_outage(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Document {
        let inbound = self.new_inbound(message, auth_token);
        self.outage
            .add_reply(inbound, self.fallback.twiml.to_stored());
        self.fallback.twiml.clone()
    }
}
