//! Call of the handler for one message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::conversation_store::{ConversationStore, state_change};
use super::deadlines::{Deadlines, handler_stopped_at, within};
use super::dispatcher::Dispatcher;
use super::origin::Origin;
use super::outcome::HandlerFailure;
use super::typing::TypingTarget;
use super::webhook_kind::WebhookKind;
use crate::handler::Context;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::signature::AuthTokenKind;
use crate::store::{Claim, Completion};

/// Runs the handler, with its timeout (`handler.timeout_ms`). A failure is logged here.
pub(super) async fn call_handler(
    dispatcher: &Dispatcher,
    claim: Claim,
    mut message: Box<InboundMessage>,
    origin: &Origin,
    auth_token: AuthTokenKind,
    kind: WebhookKind,
    deadlines: &Deadlines,
) -> Result<(Reply, Completion), HandlerFailure> {
    let sid = message.message_sid;
    let answered = dispatcher.questions.resolve(claim, &mut message).await?;
    let typing = TypingTarget::of(&message, auth_token);
    let typing = typing.map(|target| (dispatcher.typing.clone(), target));
    let typing_at = typing_at(dispatcher, claim, &kind, deadlines);
    // Dropped when the handler ends, which cancels the indicator.
    let _indicator = typing_at
        .zip(typing.as_ref())
        .map(|(at, (indicators, target))| {
            indicators.send_at(at, target.clone(), dispatcher.clock.clone())
        });
    let conversation = ConversationStore {
        store: dispatcher.store.clone(),
        id: claim.conversation,
        message: claim.id,
        at: message.received_at,
        sender: message.to.clone(),
        typing,
    };
    let mut cx = Context::new(claim.attempt, deadlines.context_deadline)
        .in_conversation(Arc::new(conversation), message.received_at);
    let state = cx.state_store();
    // Auto-save deletes files at Twilio only after this guard is dropped, because the handler may still fetch them.
    let _auto_save = dispatcher.files.auto_save(&message, auth_token);
    if !message.media.is_empty() {
        cx = cx.with_attachments(dispatcher.files.attachments(&message, auth_token));
    }
    if let WebhookKind::Fallback(cause) = kind {
        cx = cx.with_fallback(cause);
    }
    crate::crash_point!("P4");
    let started = Instant::now();
    let clock = &dispatcher.clock;
    let stopped_at = handler_stopped_at(&dispatcher.limits, &**clock);
    // The call is inside of the async block, so a panic before `handle` returns its future is caught as well.
    let handler = async { dispatcher.handler.handle(cx, *message).await };
    let timed = within(handler, || clock.sleep_until_monotonic(stopped_at));
    let outcome = AssertUnwindSafe(timed).catch_unwind().await;
    dispatcher
        .metrics
        .handler_duration
        .observe(started.elapsed().as_secs_f64());
    match outcome {
        Ok(Some(Ok(mut reply))) => {
            // Also checked when a function's value becomes a reply. A `Handler` of another kind returns it unchecked.
            if let Err(error) = reply.check() {
                tracing::error!(message_sid = %sid, %error, "the handler returned an invalid reply");
                return Err(HandlerFailure::Error);
            }
            let question = dispatcher.questions.ask(&mut reply, origin, answered);
            let completion = Completion {
                dialogue: state_change(&state),
                handoff: dispatcher.handoffs.begun_handoff(&reply),
                question,
                ..Completion::default()
            };
            Ok((reply, completion))
        }
        Ok(Some(Err(error))) => {
            tracing::error!(message_sid = %sid, %error, "the handler failed");
            Err(HandlerFailure::Error)
        }
        Ok(None) => {
            tracing::error!(message_sid = %sid, "the handler was stopped: it ran longer than handler.timeout_ms");
            Err(HandlerFailure::Error)
        }
        Err(_) => {
            tracing::error!(message_sid = %sid, "the handler panicked");
            Err(HandlerFailure::Panic)
        }
    }
}

/// Returns the time of a typing indicator by [`Clock::monotonic`](crate::clock::Clock::monotonic), or `None` if none is due.
fn typing_at(
    dispatcher: &Dispatcher,
    claim: Claim,
    kind: &WebhookKind,
    deadlines: &Deadlines,
) -> Option<Duration> {
    let after = dispatcher.limits.typing_after?;
    let at = dispatcher.clock.monotonic().saturating_add(after);
    // The fallback call of a failed message gets the fallback text at its deadline. No reply of the handler follows.
    let is_decided_before = kind.is_fallback()
        && claim.failed_before
        && !dispatcher.limits.is_rest_only
        && at >= deadlines.reply_by;
    (!is_decided_before).then_some(at)
}
