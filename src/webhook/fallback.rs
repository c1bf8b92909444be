//! `/webhook/fallback`: Twilio could not use what the primary said, and asks here. A verified call cannot fail.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::answer::{self, Answer};
use super::{Webhooks, probe};
use crate::dispatch::{Dispatched, Road};
use crate::message::{FallbackCause, InboundMessage};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn fallback(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    if let Some(answer) = probe::answered(&webhooks, Endpoint::Fallback, &form, &method) {
        return answer;
    }
    answer::respond(take(&webhooks, form).await, &method)
}

async fn take(webhooks: &Webhooks, form: SignedForm) -> Answer {
    let slot = form.token();
    let params = webhooks.params(form)?;
    let cause = webhooks.sound(Endpoint::Fallback, FallbackCause::parse(&params))?;
    let message = InboundMessage::parse(params, webhooks.clock.now());
    let message = webhooks.sound(Endpoint::Fallback, message)?;
    report(webhooks, &cause, &message);
    if let Some(hook) = webhooks.on_fallback.clone() {
        let told = (cause.clone(), message.clone());
        webhooks.tell("fallback", async move { hook(told.0, told.1).await });
    }
    let dispatcher = &webhooks.dispatcher;
    // The drain waits until it is known what to remember.
    let _under_way = dispatcher.tasks.token();
    let outcome = match webhooks.place(Endpoint::Fallback) {
        Ok(_place) => {
            let road = Road::Fallback(cause);
            dispatcher.dispatch(message.clone(), slot, road).await
        }
        Err(_) => Dispatched::Overloaded,
    };
    let document = match outcome {
        Dispatched::Answered(document)
        | Dispatched::Duplicate(document)
        | Dispatched::Consent(document) => document,
        Dispatched::OptedOut | Dispatched::Late | Dispatched::ByRest => Document::empty(),
        // Where its handler failed, the apology could not be saved.
        Dispatched::Failed(_) | Dispatched::Overloaded | Dispatched::Unavailable => {
            dispatcher.apologise(&message, slot)
        }
    };
    Ok((document, Outcome::Fallback))
}

fn report(webhooks: &Webhooks, cause: &FallbackCause, message: &InboundMessage) {
    webhooks.metrics.fallback_call(cause.error_code);
    let Some(suppressed) = webhooks.warnings.fallback.pass() else {
        return;
    };
    let code = cause.error_code.map(|code| code.0);
    let meaning = match cause.error_code {
        Some(code) => code.meaning().unwrap_or("a code that is not known here"),
        None => "without saying why",
    };
    tracing::warn!(message_sid = %message.message_sid, error_code = code, suppressed, "Twilio called the fallback URL: {meaning}");
}
