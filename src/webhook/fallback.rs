//! `/webhook/fallback`: Twilio calls it when the primary webhook failed.
//!
//! A verified call gets 200, except for 400 (`bad_form`), 415 (not a form), and 503 before the store is open.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::probe;
use super::response::{self, WebhookResult};
use super::webhooks::Webhooks;
use crate::dispatch::{DispatchOutcome, WebhookKind};
use crate::form::FormParams;
use crate::message::{FallbackCause, InboundMessage};
use crate::signature::{AuthTokenKind, SignedForm};
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn fallback(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    let auth_token = form.token();
    match webhooks.read_params(Endpoint::Fallback, form) {
        Ok(None) => probe::respond(&webhooks, Endpoint::Fallback, &method),
        Ok(Some(params)) => response::respond(handle(&webhooks, auth_token, params).await, &method),
        Err(error) => response::respond(Err(error), &method),
    }
}

async fn handle(
    webhooks: &Webhooks,
    auth_token: AuthTokenKind,
    params: FormParams,
) -> WebhookResult {
    let cause = webhooks.require_parsed(Endpoint::Fallback, FallbackCause::parse(&params))?;
    let message = InboundMessage::parse(params, webhooks.clock.now());
    let message = webhooks.require_parsed(Endpoint::Fallback, message)?;
    report_call(webhooks, &cause, &message);
    // Not awaited: a user waits for the response, and the hook only observes.
    if let Some(hook) = webhooks.on_fallback.clone() {
        let (cause, message) = (cause.clone(), message.clone());
        webhooks.spawn_hook("fallback", async move { hook(cause, message).await });
    }
    let dispatcher = &webhooks.dispatcher;
    // Held until the end of the function: shutdown must not write the last unflushed replies before this call may have
    // added one below.
    let _task = dispatcher.tasks.token();
    // Without a permit the call still gets the fallback text, which costs no handler.
    let outcome = match webhooks.acquire_permit(Endpoint::Fallback) {
        Ok(_permit) => {
            let webhook = WebhookKind::Fallback(cause);
            dispatcher
                .dispatch(message.clone(), auth_token, webhook)
                .await
        }
        Err(_) => DispatchOutcome::Overloaded,
    };
    let document = match outcome {
        DispatchOutcome::Reply(document)
        | DispatchOutcome::Duplicate(document)
        | DispatchOutcome::ConsentConfirmation(document) => document,
        DispatchOutcome::OptedOut | DispatchOutcome::Late | DispatchOutcome::ByRest => {
            Document::empty()
        }
        // Nothing is saved for the message: send the fallback text, and write it to the store later. `Failed` means
        // here that the fallback text could not be saved after the handler failed.
        DispatchOutcome::Failed(_) | DispatchOutcome::Overloaded | DispatchOutcome::Unavailable => {
            dispatcher.reply_during_outage(&message, auth_token)
        }
    };
    Ok((document, Outcome::Fallback))
}

fn report_call(webhooks: &Webhooks, cause: &FallbackCause, message: &InboundMessage) {
    webhooks.metrics.fallback_call(cause.error_code);
    let Some(suppressed) = webhooks.warnings.fallback.try_log() else {
        return;
    };
    let code = cause.error_code.map(|code| code.0);
    let meaning = match cause.error_code {
        Some(code) => code.meaning_or_link(),
        None => "no error code".into(),
    };
    tracing::warn!(message_sid = %message.message_sid, error_code = code, suppressed, "Twilio called the fallback URL: {meaning}");
}
