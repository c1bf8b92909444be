//! Consent keywords of inbound messages: their confirmations, and the report of the change.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::consent_change::{self, ConsentChange, ConsentHook, ConsentKind};
use super::origin::Origin;
use super::store_monitor::StoreMonitor;
use crate::clock::Clock;
use crate::consent::ConsentRules;
use crate::message::InboundMessage;
use crate::reloadable::Reloadable;
use crate::reply::Reply;
use crate::signature::AuthTokenKind;
use crate::store::{ConsentKeyword, Store};
use crate::telemetry::metrics::Metrics;
use crate::twiml::interpreter::rendered_messages;

/// Handling of consent keywords.
pub(crate) struct ConsentKeywords {
    /// The keywords and their confirmations.
    pub(super) rules: Reloadable<ConsentRules>,
    pub(super) hook: Option<ConsentHook>,
    /// True if confirmations go via the REST API.
    pub(super) is_rest_only: bool,
    pub(super) store: Arc<dyn Store>,
    pub(super) monitor: Arc<StoreMonitor>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: TaskTracker,
    /// Wakes the outbox worker.
    pub(super) outbox: Arc<Notify>,
    /// Wakes the worker that cancels scheduled messages after an opt-out.
    pub(super) opted_out: Arc<Notify>,
}

impl ConsentKeywords {
    /// Returns the consent keyword of a message, whose confirmation becomes the response.
    pub(super) fn keyword(&self, message: &InboundMessage) -> Option<ConsentKeyword> {
        let mut keyword = self.rules.load().meaning(message);
        if self.is_rest_only
            && let Some(
                ConsentKeyword::Stop { confirmation, .. }
                | ConsentKeyword::Start { confirmation, .. },
            ) = &mut keyword
        {
            // `confirm_via_rest` sends it.
            confirmation.clear();
        }
        keyword
    }

    /// Queues the confirmation of a consent keyword, if it has one and confirmations go via the REST API.
    // Before the response, so that the acknowledged keyword has its confirmation in the outbox. If this fails or the process
    // ends, the user gets none; the change of consent is stored already.
    pub(super) async fn confirm_via_rest(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) {
        if !self.is_rest_only {
            return;
        }
        let keyword = self.rules.load().meaning(message);
        let Some(
            ConsentKeyword::Stop { confirmation, .. } | ConsentKeyword::Start { confirmation, .. },
        ) = &keyword
        else {
            return;
        };
        let is_opt_out = matches!(keyword, Some(ConsentKeyword::Stop { .. }));
        let texts = rendered_messages(confirmation).into_iter();
        let Some(reply) = texts.map(|text| Reply::text(text.body)).next() else {
            return;
        };
        let outbound = Origin::of(message, auth_token).outbound_of(&reply);
        let now = self.clock.now();
        let queued = if is_opt_out {
            let queued = self.store.enqueue_confirmation(outbound, now);
            self.monitor
                .timed("enqueue_confirmation", queued)
                .await
                .map(|_| ())
        } else {
            let queued = self.store.enqueue(outbound, now);
            self.monitor.timed("enqueue", queued).await.map(|_| ())
        };
        if queued.is_err() {
            tracing::warn!(message_sid = %message.message_sid, "the confirmation of a consent keyword could not be queued; the user gets none");
        }
        self.outbox.notify_one();
    }

    /// Reports a stored keyword: counts it, wakes the cancellation of scheduled messages after an opt-out, and calls the
    /// application's hook.
    pub(super) fn report_change(&self, message: InboundMessage, keyword: &ConsentKeyword) {
        let kind = ConsentKind::of(keyword);
        self.metrics.consent(kind.as_str());
        if kind == ConsentKind::OptOut {
            self.opted_out.notify_one();
        }
        if let Some(hook) = self.hook.clone() {
            // In a task of its own, because the request that the caller has just woken is the next task of this thread: a
            // hook that blocks the thread would delay its response.
            let change = ConsentChange { message, kind };
            self.tasks
                .spawn(async move { consent_change::call_hook(&hook, change).await });
        }
    }
}
