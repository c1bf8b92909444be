//! `/webhook/status`: status callbacks of messages that were sent.
//!
//! Each is applied to its outbound message in the store, and gets `<Response/>`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::Method;

use super::probe;
use super::response::{self, ErrorResponse, WebhookResult};
use super::webhooks::Webhooks;
use crate::address::Address;
use crate::form::FormParams;
use crate::message::StatusUpdate;
use crate::signature::SignedForm;
use crate::store::{StatusEffect, StatusEvent};
use crate::telemetry::StoreFailure;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

/// Maximum time that a response waits for the store, and after that for the hook, which then continues by itself.
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn status(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    form: SignedForm,
) -> Response {
    match webhooks.read_params(Endpoint::Status, form) {
        Ok(None) => probe::respond(&webhooks, Endpoint::Status, &method),
        Ok(Some(params)) => {
            let outbound = uri.query().and_then(outbound_ref);
            response::respond(handle(&webhooks, params, outbound).await, &method)
        }
        Err(error) => response::respond(Err(error), &method),
    }
}

/// Returns the outbound id in the query of the callback URL.
// It finds the message even if the callback arrives before Twilio's response with the SID. It can be trusted: the
// signature covers the URL, which the outbox worker set as `StatusCallback`.
fn outbound_ref(query: &str) -> Option<String> {
    let query = FormParams::parse(query.as_bytes(), 16).ok()?;
    query.get("r").map(str::to_owned)
}

async fn handle(
    webhooks: &Webhooks,
    params: FormParams,
    outbound: Option<String>,
) -> WebhookResult {
    let _permit = webhooks.acquire_permit(Endpoint::Status)?;
    handle_callback(webhooks, params, outbound).await
}

/// Handles a status callback, which may arrive at `/webhook` too.
pub(super) async fn handle_callback(
    webhooks: &Webhooks,
    params: FormParams,
    outbound: Option<String>,
) -> WebhookResult {
    let update = webhooks.require_parsed(Endpoint::Status, StatusUpdate::parse(params))?;
    let event = StatusEvent {
        account: update.account_sid,
        sid: update.message_sid,
        outbound,
        status: update.status.clone(),
        error_code: update.error_code,
        sender: update.from.as_ref().map(Address::normalized),
        service: update.messaging_service_sid,
        user: named_users(&update),
        at: webhooks.clock.now(),
    };
    crate::crash_point!("P13");
    // Before the response: an acknowledgement never precedes durability.
    match tokio::time::timeout(HOOK_TIMEOUT, webhooks.store.apply_status(event)).await {
        Ok(Ok(StatusEffect::QueuedAgain)) => {
            tracing::warn!(message_sid = %update.message_sid, error_code = update.error_code.map(|code| code.0), "a message failed for a reason that passes by itself; it is sent again in a minute");
        }
        Ok(Ok(StatusEffect::QueuedAsText)) => {
            tracing::warn!(message_sid = %update.message_sid, error_code = update.error_code.map(|code| code.0), "the content of a message was refused; its text is sent now");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(store_unavailable(webhooks, &error)),
        Err(_) => return Err(store_unavailable(webhooks, &"it takes too long")),
    }
    report_status(webhooks, &update);
    if let Some(hook) = webhooks.on_status.clone() {
        let running = webhooks.spawn_hook("status", async move { hook(update).await });
        // Respond only after the hook: until then this request holds its `InFlightPermit`, which bounds the number of
        // running hooks. At the timeout the hook continues as a task of its own.
        let _ = tokio::time::timeout(HOOK_TIMEOUT, running).await;
    }
    Ok((Document::empty(), Outcome::Ok))
}

/// Returns the recipient's address, and the business-scoped IDs of the same user.
fn named_users(update: &StatusUpdate) -> Vec<Address> {
    let Some(to) = &update.to else {
        return Vec::new();
    };
    let ids = [&update.external_user_id, &update.parent_external_user_id];
    let ids = ids.into_iter().flatten();
    std::iter::once(to)
        .chain(ids)
        .map(Address::normalized)
        .collect()
}

fn store_unavailable(webhooks: &Webhooks, failure: &dyn StoreFailure) -> ErrorResponse {
    webhooks
        .store_report
        .record_failure("apply_status", failure);
    ErrorResponse::Unavailable("store unavailable\n")
}

fn report_status(webhooks: &Webhooks, update: &StatusUpdate) {
    webhooks.metrics.status_update(&update.status);
    if !update.status.is_failure() {
        return;
    }
    webhooks.metrics.undelivered(update.error_code);
    let Some(suppressed) = webhooks.warnings.undelivered.try_log() else {
        return;
    };
    let code = update.error_code.map(|code| code.0);
    let meaning = match update.error_code {
        Some(code) => code.meaning_or_link(),
        None => "unknown reason".into(),
    };
    let status = update.status.as_str();
    tracing::warn!(message_sid = %update.message_sid, status, error_code = code, suppressed, "a message was not delivered: {meaning}");
}
