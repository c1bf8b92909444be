//! `/webhook/fallback`: Twilio could not use what the primary said, and asks here. A verified call cannot fail.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures_util::FutureExt;
use http::Method;

use super::answer::{self, Cause};
use super::{Webhooks, primary};
use crate::dispatch::{Dispatched, Road};
use crate::error_code::ErrorCode;
use crate::message::{FallbackCause, InboundMessage};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};

pub(super) async fn fallback(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    webhooks.metrics.token_slot(form.token());
    if !form.is_form() {
        return answer::refusal(Cause::NotAForm, &method);
    }
    let cause = FallbackCause::parse(form.params());
    let message = InboundMessage::parse(form.into_params(), webhooks.clock.now());
    let (cause, message) = match (cause, message) {
        (Ok(cause), Ok(message)) => (cause, message),
        (Err(error), _) | (_, Err(error)) => {
            return primary::bad_form(&webhooks, &error, &method, Endpoint::Fallback);
        }
    };
    webhooks.metrics.fallback_call(cause.error_code);
    if let Some(held) = webhooks.warnings.pass() {
        let code = cause.error_code.map(|code| code.0);
        let meaning = cause
            .error_code
            .and_then(ErrorCode::meaning)
            .unwrap_or("a code that is not known here");
        tracing::warn!(message_sid = %message.message_sid, error_code = code, held, "Twilio called the fallback URL: {meaning}");
    }
    if let Some(hook) = &webhooks.on_fallback {
        let (hook, told) = (hook.clone(), (cause.clone(), message.clone()));
        webhooks.dispatcher.tasks.spawn(async move {
            if AssertUnwindSafe(async { hook(told.0, told.1).await })
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!("the fallback hook panicked");
            }
        });
    }
    let document = match webhooks
        .dispatcher
        .dispatch(message, Road::Fallback(cause))
        .await
    {
        Dispatched::Answered(document) => document,
        Dispatched::Late | Dispatched::Failed(_) | Dispatched::Overloaded => {
            webhooks.apology.clone()
        }
    };
    answer::document(document, &method, Outcome::Fallback)
}
