//! Processing of one inbound message, from accepting it to its reply.
//!
//! A task of its own accepts the message (durably, once), waits for its turn in its conversation, runs the handler
//! unless the guard blocks the message, and saves the reply before sending it. A closed connection does not cancel the
//! task. The request only waits for the task. At the deadline the request decides that the reply goes via the REST API.
//! If both happen at the same time, the store decides which was first.

mod access_list;
mod backlog;
mod block_reason;
mod blocked_messages;
mod consent_change;
mod consent_keywords;
mod conversation_store;
mod counted_key;
mod dead_messages;
mod deadlines;
mod debounce;
mod dispatcher;
mod guard;
mod handler_call;
mod handoff_redirects;
mod held_messages;
mod limits;
mod message_task;
mod origin;
mod outage;
mod outcome;
mod pending;
mod permit;
mod questions;
mod repetition;
mod reply_plan;
mod save_reply;
mod store_monitor;
mod typing;
mod waiting;
mod webhook_kind;

use std::sync::Arc;

pub(crate) use self::access_list::AccessRules;
pub(crate) use self::backlog::Backlog;
pub(crate) use self::consent_change::ConsentHook;
pub use self::consent_change::{ConsentChange, ConsentKind};
pub(crate) use self::dead_messages::report_expired;
use self::deadlines::Deadlines;
pub(crate) use self::dispatcher::{Dispatcher, DispatcherParts, FallbackTexts};
pub(crate) use self::guard::{Guard, GuardRules, spellings};
pub(crate) use self::limits::DispatchLimits;
use self::message_task::MessageTask;
pub(crate) use self::outcome::{DispatchOutcome, HandlerFailure, RejectedReplyHook};
use self::pending::{Acceptance, AcceptedMessage, PendingResponse};
pub(crate) use self::questions::ChoiceSettings;
pub(crate) use self::typing::{TypingHook, TypingIndicators, TypingTarget};
pub(crate) use self::webhook_kind::WebhookKind;
use crate::message::InboundMessage;
use crate::signature::AuthTokenKind;
use crate::store::{ReplyDecision, ReplyPath};
use crate::twiml::Document;

impl Dispatcher {
    /// Spawns the task of a message and waits for its outcome, at most until the deadline.
    pub(crate) async fn dispatch(
        self: &Arc<Self>,
        message: InboundMessage,
        auth_token: AuthTokenKind,
        kind: WebhookKind,
    ) -> DispatchOutcome {
        let Some(permit) = self.permits.try_acquire() else {
            return DispatchOutcome::Overloaded;
        };
        let (sid, is_fallback) = (message.message_sid, kind.is_fallback());
        let deadlines = Deadlines::of_request(
            &self.limits,
            &kind,
            &*self.clock,
            self.store.operation_timeout(),
            message.received_at,
        );
        let (pending, responder) = PendingResponse::pair();
        let task = MessageTask::new(self.clone(), responder, deadlines, kind);
        // Boxed, since spawning moves the future several times.
        self.tasks
            .spawn(Box::pin(task.run(Box::new(message), auth_token, permit)));
        let deadline = || self.clock.sleep_until_monotonic(deadlines.reply_by);
        let first = tokio::time::timeout_at(deadlines.accept_by, pending.resolved(deadline));
        if let Ok(Some(outcome)) = first.await {
            return outcome;
        }
        // The deadline can be shorter than the store's timeout. Wait until the message is stored also after it: an
        // acknowledgement must not precede the commit of the message.
        let accepted = match pending.accepted(deadlines.accept_by).await {
            Acceptance::Resolved(outcome) => return outcome,
            Acceptance::Accepted(message) => message,
            Acceptance::NotYet => {
                self.monitor.report_failure("accept", &"timed out");
                self.monitor.report.health.record_rejected(sid);
                return DispatchOutcome::Unavailable;
            }
        };
        match pending.resolved(deadline).await {
            Some(outcome) => outcome,
            None => {
                self.decide_at_deadline(accepted, is_fallback, &pending)
                    .await
            }
        }
    }

    /// Decides the reply path of a message that has no outcome at its deadline.
    async fn decide_at_deadline(
        &self,
        message: AcceptedMessage,
        is_fallback: bool,
        pending: &PendingResponse,
    ) -> DispatchOutcome {
        // A fallback call gets the fallback text if the handler failed before, since it may fail again. Without a text,
        // wait for the handler: its reply can still be sent.
        let has_text = self.fallback.twiml != Document::empty();
        let path = if is_fallback && message.failed_before && has_text && !self.limits.is_rest_only
        {
            ReplyPath::Twiml(self.fallback.stored_twiml())
        } else {
            ReplyPath::Rest
        };
        let decision = self.store.decide(message.id, path, self.clock.now());
        match self.monitor.timed("decide", decision).await {
            Err(()) => DispatchOutcome::Unavailable,
            Ok(ReplyDecision::Inline(response)) => {
                DispatchOutcome::Reply(Document::from_stored(response.twiml))
            }
            Ok(ReplyDecision::ViaRest) => {
                crate::crash_point!("P9");
                DispatchOutcome::Late
            }
            // The handler failed between the deadline and `decide`. The task is about to send that outcome.
            Ok(ReplyDecision::ClaimLost) => pending
                .resolved(|| Box::pin(std::future::pending()))
                .await
                .unwrap_or(DispatchOutcome::Failed(HandlerFailure::Error)),
        }
    }
}
