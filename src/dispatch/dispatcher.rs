//! [`Dispatcher`]: the parts and steps that the processing of a message shares.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::consent_change::ConsentHook;
use super::conversation_store::TypingHook;
use super::guard::Guard;
use super::held_messages::HeldMessages;
use super::limits::DispatchLimits;
use super::outage::Outage;
use super::permit::HandlerPermit;
use super::waiting::{Deferred, Waiting};
use crate::clock::Clock;
use crate::consent::ConsentRules;
use crate::handler::{Files, Handler};
use crate::message::InboundMessage;
use crate::signature::{AuthTokenKind, PublicUrl};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreFailure, StoreReport};
use crate::twiml::Document;

/// Everything that the processing of a message needs.
pub(crate) struct Dispatcher {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store_report: StoreReport,
    pub(crate) public_url: PublicUrl,
    pub(crate) limits: DispatchLimits,
    pub(crate) consent: ConsentRules,
    /// Loop detection and rate limit.
    pub(crate) guard: Guard,
    pub(crate) fallback: FallbackTexts,
    pub(crate) on_consent: Option<ConsentHook>,
    /// Media of messages and replies.
    pub(crate) files: Arc<dyn Files>,
    pub(crate) typing: TypingHook,
    pub(crate) tasks: TaskTracker,
    /// Wakes the outbox worker.
    pub(crate) outbox: Arc<Notify>,
    /// Wakes the worker that cancels scheduled messages after an opt-out.
    pub(crate) opted_out: Arc<Notify>,
    pub(crate) state: DispatchState,
}

/// Reply to a fallback call when the handler fails again.
pub(crate) struct FallbackTexts {
    /// The text as TwiML; empty if none is configured, or if no response has a message.
    pub(crate) twiml: Document,
    /// The text for the REST API, if no response has a message.
    pub(crate) rest: Option<String>,
}

/// Mutable state shared by all message tasks.
pub(crate) struct DispatchState {
    /// Number of running handlers.
    pub(super) running: Arc<AtomicUsize>,
    pub(super) waiting: Waiting,
    pub(super) deferred: Deferred,
    pub(super) held: HeldMessages,
    pub(super) outage: Outage,
    /// Wakes the backlog.
    pub(super) backlog: Notify,
}

impl DispatchState {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            running: Arc::default(),
            waiting: Waiting::default(),
            deferred: Deferred::default(),
            held: HeldMessages::default(),
            outage: Outage::new(clock.monotonic()),
            backlog: Notify::new(),
        }
    }
}

impl Dispatcher {
    /// Acquires the permit of a handler, unless too many are running.
    pub(super) fn try_acquire_permit(&self) -> Option<HandlerPermit> {
        HandlerPermit::try_acquire(&self.state.running, self.limits.running, &self.metrics)
    }

    /// Runs a store operation with the store's timeout, and reports a failure.
    pub(super) async fn timed<T>(
        &self,
        step: &'static str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ()> {
        match tokio::time::timeout(self.store.operation_timeout(), operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.store_failed(step, &error);
                Err(())
            }
            Err(_) => {
                self.store_failed(step, &"timed out");
                Err(())
            }
        }
    }

    /// Reports a failed store operation.
    pub(super) fn store_failed(&self, step: &'static str, failure: &dyn StoreFailure) {
        self.state.outage.store_failed(self.clock.monotonic());
        self.store_report.record_failure(step, failure);
    }

    /// Returns the fallback text as saved TwiML, or an empty text if there is none.
    pub(super) fn fallback_twiml(&self) -> String {
        self.fallback.twiml.to_stored().unwrap_or_default()
    }

    /// Returns until when nothing may go via the REST API in reply to a message that was received at a time of
    /// [`Clock::monotonic`]; `None` if it may now.
    // Only with peers and a fallback text: otherwise no other server can have sent one that this server does not know.
    pub(super) fn rest_held_until(&self, received: Duration) -> Option<Duration> {
        if !self.store.has_peers() || self.fallback.twiml == Document::empty() {
            return None;
        }
        let until = self.state.outage.held_until(received)?;
        (self.clock.monotonic() < until).then_some(until)
    }

    /// Responds to a fallback call that the store could not accept, and buffers the reply until the store is back.
    pub(crate) fn reply_during_outage(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Document {
        let outage = &self.state.outage;
        let inbound = self.new_inbound(message, auth_token);
        if !outage.add_reply(inbound, self.fallback.twiml.to_stored()) {
            tracing::error!(message_sid = %message.message_sid, "the buffer for fallback replies is full, so this one will not be in the journal; run `replyhook reconcile` after the outage");
        }
        self.metrics.set_outage_replies(outage.reply_count());
        self.state.backlog.notify_one();
        self.fallback.twiml.clone()
    }
}
