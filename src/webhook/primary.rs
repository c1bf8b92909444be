//! `/webhook`: receives inbound messages and responds with their replies.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::response::{self, ErrorResponse, WebhookResult};
use super::{Webhooks, conversations, probe, status};
use crate::dispatch::{DispatchOutcome, WebhookKind};
use crate::message::{ConversationEvent, InboundMessage};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn primary(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    if let Some(response) = probe::respond_to_probe(&webhooks, Endpoint::Primary, &form, &method) {
        return response;
    }
    response::respond(handle(&webhooks, form).await, &method)
}

async fn handle(webhooks: &Webhooks, form: SignedForm) -> WebhookResult {
    let auth_token = form.token();
    let params = webhooks.params(form)?;
    let _permit = webhooks.acquire_permit(Endpoint::Primary)?;
    // Before messages: an event of Twilio Conversations can have a `MessageSid` and a `Body` too.
    if ConversationEvent::is_one(&params) {
        return conversations::handle(webhooks, params).await;
    }
    if params
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
    {
        // A status callback whose URL is configured as `/webhook`. The bot must not reply to it.
        return status::handle_callback(webhooks, params, None).await;
    }
    let message = InboundMessage::parse(params, webhooks.clock.now());
    let message = webhooks.require_parsed(Endpoint::Primary, message)?;
    let outcome = webhooks
        .dispatcher
        .dispatch(message, auth_token, WebhookKind::Primary)
        .await;
    match outcome {
        DispatchOutcome::Reply(document) => Ok((document, Outcome::Ok)),
        DispatchOutcome::Duplicate(document) => Ok((document, Outcome::Duplicate)),
        DispatchOutcome::ConsentConfirmation(document) => Ok((document, Outcome::Consent)),
        DispatchOutcome::OptedOut => Ok((Document::empty(), Outcome::OptedOut)),
        DispatchOutcome::Late => Ok((Document::empty(), Outcome::Late)),
        DispatchOutcome::ByRest => Ok((Document::empty(), Outcome::ByRest)),
        DispatchOutcome::Failed(failure) => Err(ErrorResponse::Failed(failure)),
        DispatchOutcome::Overloaded => Err(ErrorResponse::Unavailable("overloaded\n")),
        DispatchOutcome::Unavailable => Err(ErrorResponse::Unavailable("store unavailable\n")),
    }
}
