//! `/webhook/status`: news of what became of a message that was sent. Always 200 `<Response/>`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures_util::FutureExt;
use http::Method;

use super::answer::{self, Cause};
use super::{Webhooks, primary};
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
    webhooks.metrics.token_slot(form.token());
    if !form.is_form() {
        return answer::refusal(Cause::NotAForm, &method);
    }
    take(&webhooks, &method, form.into_params()).await
}

/// Takes a status callback, on whichever URL it came.
pub(super) async fn take(webhooks: &Webhooks, method: &Method, params: Form) -> Response {
    let update = match StatusUpdate::parse(params) {
        Ok(update) => update,
        Err(error) => return primary::bad_form(webhooks, &error, method, Endpoint::Status),
    };
    webhooks.metrics.status_update(&update.status);
    if update.status.is_failure()
        && let Some(held) = webhooks.warnings.pass()
    {
        let code = update.error_code.map(|code| code.0);
        let meaning = update
            .error_code
            .and_then(ErrorCode::meaning)
            .unwrap_or("no known reason");
        let status = update.status.as_str();
        tracing::warn!(message_sid = %update.message_sid, status, error_code = code, held, "a message was not delivered: {meaning}");
    }
    if let Some(hook) = webhooks.on_status.clone() {
        let told = webhooks.dispatcher.tasks.spawn(async move {
            // The hook's own code may panic before its future exists.
            let told = AssertUnwindSafe(async { hook(update).await })
                .catch_unwind()
                .await;
            if told.is_err() {
                tracing::error!("the status hook panicked");
            }
        });
        // Twilio waits, so that a flood of callbacks finds its limit in the requests that are in flight.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }
    answer::document(Document::empty(), method, Outcome::Ok)
}
