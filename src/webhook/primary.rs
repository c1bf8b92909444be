//! `/webhook`: a message comes, its answer goes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::answer::{self, Cause};
use super::{Webhooks, status};
use crate::dispatch::{Dispatched, Road};
use crate::message::{InboundMessage, ParseError};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn primary(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    webhooks.metrics.token_slot(form.token());
    if !form.is_form() {
        return answer::refusal(Cause::NotAForm, &method);
    }
    if form.params().get("MessageStatus").is_some() {
        // The status callback was pointed at the message URL. It is no message and must not be answered by the bot.
        return status::take(&webhooks, &method, form.into_params()).await;
    }
    let message = match InboundMessage::parse(form.into_params(), webhooks.clock.now()) {
        Ok(message) => message,
        Err(error) => return bad_form(&webhooks, &error, &method, Endpoint::Primary),
    };
    match webhooks.dispatcher.dispatch(message, Road::Primary).await {
        Dispatched::Answered(document) => answer::document(document, &method, Outcome::Ok),
        Dispatched::Late => answer::document(Document::empty(), &method, Outcome::Late),
        Dispatched::Failed(failure) => answer::refusal(Cause::Failed(failure), &method),
        Dispatched::Overloaded => answer::refusal_with(Cause::Unavailable, "overloaded\n", &method),
    }
}

/// Signed, and yet no message: the protocol has changed, or someone moves the boundaries of a signature.
pub(super) fn bad_form(
    webhooks: &Webhooks,
    error: &ParseError,
    method: &Method,
    endpoint: Endpoint,
) -> Response {
    if let Some(held) = webhooks.warnings.pass() {
        tracing::error!(endpoint = endpoint.as_str(), held, %error, "a signed request is no message");
    }
    answer::refusal(Cause::BadForm, method)
}
