//! `/webhook`: receives inbound messages and responds with their replies.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::classify::WebhookEvent;
use super::response::{self, ErrorResponse, WebhookResult};
use super::webhooks::Webhooks;
use super::{conversations, probe, status};
use crate::dispatch::{DispatchOutcome, WebhookKind};
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::signature::{AuthTokenKind, SignedForm};
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn primary(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    let auth_token = form.token();
    match webhooks.read_params(Endpoint::Primary, form) {
        Ok(None) => probe::respond(&webhooks, Endpoint::Primary, &method),
        Ok(Some(params)) => response::respond(handle(&webhooks, auth_token, params).await, &method),
        Err(error) => response::respond(Err(error), &method),
    }
}

async fn handle(
    webhooks: &Webhooks,
    auth_token: AuthTokenKind,
    params: FormParams,
) -> WebhookResult {
    let _permit = webhooks.acquire_permit(Endpoint::Primary)?;
    match WebhookEvent::classify(params) {
        WebhookEvent::Message(params) => reply(webhooks, auth_token, params).await,
        WebhookEvent::Status(params) => status::handle_callback(webhooks, params, None).await,
        WebhookEvent::Conversation(params) => conversations::handle(webhooks, params).await,
    }
}

/// Passes a message to its handler, and returns the reply.
async fn reply(
    webhooks: &Webhooks,
    auth_token: AuthTokenKind,
    params: FormParams,
) -> WebhookResult {
    let message = InboundMessage::parse(params, webhooks.clock.now());
    let message = webhooks.require_parsed(Endpoint::Primary, message)?;
    let (sid, started) = (message.message_sid, Instant::now());
    let outcome = webhooks
        .dispatcher
        .dispatch(message, auth_token, WebhookKind::Primary)
        .await;
    let result = match outcome {
        DispatchOutcome::Reply(document) => Ok((document, Outcome::Ok)),
        DispatchOutcome::Duplicate(document) => Ok((document, Outcome::Duplicate)),
        DispatchOutcome::ConsentConfirmation(document) => Ok((document, Outcome::Consent)),
        DispatchOutcome::OptedOut => Ok((Document::empty(), Outcome::OptedOut)),
        DispatchOutcome::Late => Ok((Document::empty(), Outcome::Late)),
        DispatchOutcome::ByRest => Ok((Document::empty(), Outcome::ByRest)),
        DispatchOutcome::Failed(failure) => Err(ErrorResponse::Failed(failure)),
        DispatchOutcome::Overloaded => Err(ErrorResponse::Unavailable("overloaded\n")),
        DispatchOutcome::Unavailable => Err(ErrorResponse::Unavailable("store unavailable\n")),
    };
    let outcome = response::outcome_of(&result).as_str();
    let ms = started.elapsed().as_millis();
    tracing::debug!(message_sid = %sid, outcome, ms, "responded to a message");
    result
}
