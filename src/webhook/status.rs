//! `/webhook/status`: news of what became of a message that was sent. Kept, joined to the message it is about, and answered
//! with `<Response/>`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::Method;

use super::answer::{self, Answer, Cause};
use super::{Webhooks, probe};
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::message::StatusUpdate;
use crate::signature::SignedForm;
use crate::store::News;
use crate::telemetry::StoreFailure;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// How long Twilio waits for the store, and then for a hook; the hook itself goes on.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn status(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    form: SignedForm,
) -> Response {
    if let Some(answer) = probe::answered(&webhooks, Endpoint::Status, &form, &method) {
        return answer;
    }
    let reply = uri.query().and_then(name);
    answer::respond(take(&webhooks, form, reply).await, &method)
}

/// Our name for the message, in the URL that Twilio was given with it, and has signed.
fn name(query: &str) -> Option<String> {
    let query = Form::parse(query.as_bytes(), 16).ok()?;
    query.get("r").map(str::to_owned)
}

async fn take(webhooks: &Webhooks, form: SignedForm, reply: Option<String>) -> Answer {
    let params = webhooks.params(form)?;
    let _place = webhooks.place(Endpoint::Status)?;
    news(webhooks, params, reply).await
}

/// Takes a status callback, on whichever URL it came. It is kept before Twilio hears that it was taken.
pub(super) async fn news(webhooks: &Webhooks, params: Form, reply: Option<String>) -> Answer {
    let update = webhooks.sound(Endpoint::Status, StatusUpdate::parse(params))?;
    let news = News {
        account: update.account_sid,
        sid: update.message_sid,
        reply,
        status: update.status.clone(),
        error_code: update.error_code,
        us: update.from.clone(),
        service: update.messaging_service_sid,
        user: update.to.clone(),
        at: webhooks.clock.now(),
    };
    crate::crash_point!("P13");
    match tokio::time::timeout(PATIENCE, webhooks.store.news(news)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(unkept(webhooks, &error)),
        Err(_) => return Err(unkept(webhooks, &"it takes too long")),
    }
    report(webhooks, &update);
    if let Some(hook) = webhooks.on_status.clone() {
        let told = webhooks.tell("status", async move { hook(update).await });
        // Twilio waits, so that a flood of callbacks finds its limit in the requests that are in flight.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }
    Ok((Document::empty(), Outcome::Ok))
}

fn unkept(webhooks: &Webhooks, failure: &dyn StoreFailure) -> Cause {
    webhooks.store_report.failed("news", failure);
    Cause::Unavailable("store unavailable\n")
}

fn report(webhooks: &Webhooks, update: &StatusUpdate) {
    webhooks.metrics.status_update(&update.status);
    if !update.status.is_failure() {
        return;
    }
    webhooks.metrics.undelivered(update.error_code);
    let Some(suppressed) = webhooks.warnings.undelivered.pass() else {
        return;
    };
    let code = update.error_code.map(|code| code.0);
    let meaning = update
        .error_code
        .and_then(ErrorCode::meaning)
        .unwrap_or("no known reason");
    let status = update.status.as_str();
    tracing::warn!(message_sid = %update.message_sid, status, error_code = code, suppressed, "a message was not delivered: {meaning}");
}
