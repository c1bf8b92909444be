//! `/webhook/status`: news of what became of a message that was sent. Always 200 `<Response/>`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::Webhooks;
use super::answer::{self, Answer};
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::message::StatusUpdate;
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// How long Twilio waits for a hook; the hook itself goes on.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn status(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    answer::respond(take(&webhooks, form).await, &method)
}

async fn take(webhooks: &Webhooks, form: SignedForm) -> Answer {
    let params = webhooks.params(form)?;
    let _place = webhooks.place(Endpoint::Status)?;
    news(webhooks, params).await
}

/// Takes a status callback, on whichever URL it came.
pub(super) async fn news(webhooks: &Webhooks, params: Form) -> Answer {
    let update = webhooks.sound(Endpoint::Status, StatusUpdate::parse(params))?;
    report(webhooks, &update);
    if let Some(hook) = webhooks.on_status.clone() {
        let told = webhooks.tell("status", async move { hook(update).await });
        // Twilio waits, so that a flood of callbacks finds its limit in the requests that are in flight.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }
    Ok((Document::empty(), Outcome::Ok))
}

fn report(webhooks: &Webhooks, update: &StatusUpdate) {
    webhooks.metrics.status_update(&update.status);
    if !update.status.is_failure() {
        return;
    }
    let Some(held) = webhooks.warnings.undelivered.pass() else {
        return;
    };
    let code = update.error_code.map(|code| code.0);
    let meaning = update
        .error_code
        .and_then(ErrorCode::meaning)
        .unwrap_or("no known reason");
    let status = update.status.as_str();
    tracing::warn!(message_sid = %update.message_sid, status, error_code = code, held, "a message was not delivered: {meaning}");
}
