//! `/webhook`: a message comes, its answer goes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::answer::{self, Answer, Cause};
use super::{Webhooks, conversations, probe, status};
use crate::dispatch::{Dispatched, Road};
use crate::message::{ConversationEvent, InboundMessage};
use crate::signature::SignedForm;
use crate::telemetry::metrics::{Endpoint, Outcome};
use crate::twiml::Document;

pub(super) async fn primary(
    State(webhooks): State<Arc<Webhooks>>,
    method: Method,
    form: SignedForm,
) -> Response {
    if let Some(answer) = probe::answered(&webhooks, Endpoint::Primary, &form, &method) {
        return answer;
    }
    answer::respond(take(&webhooks, form).await, &method)
}

async fn take(webhooks: &Webhooks, form: SignedForm) -> Answer {
    let slot = form.token();
    let params = webhooks.params(form)?;
    let _place = webhooks.place(Endpoint::Primary)?;
    if ConversationEvent::is_one(&params) {
        return conversations::tell(webhooks, params).await;
    }
    if params
        .get("MessageStatus")
        .is_some_and(|status| !status.is_empty())
    {
        // The status callback was pointed at the message URL. It is no message and must not be answered by the bot.
        return status::news(webhooks, params, None).await;
    }
    let message = InboundMessage::parse(params, webhooks.clock.now());
    let message = webhooks.sound(Endpoint::Primary, message)?;
    let dispatched = webhooks
        .dispatcher
        .dispatch(message, slot, Road::Primary)
        .await;
    match dispatched {
        Dispatched::Answered(document) => Ok((document, Outcome::Ok)),
        Dispatched::Duplicate(document) => Ok((document, Outcome::Duplicate)),
        Dispatched::Consent(document) => Ok((document, Outcome::Consent)),
        Dispatched::OptedOut => Ok((Document::empty(), Outcome::OptedOut)),
        Dispatched::Late => Ok((Document::empty(), Outcome::Late)),
        Dispatched::ByRest => Ok((Document::empty(), Outcome::ByRest)),
        Dispatched::Failed(failure) => Err(Cause::Failed(failure)),
        Dispatched::Overloaded => Err(Cause::Unavailable("overloaded\n")),
        Dispatched::Unavailable => Err(Cause::Unavailable("store unavailable\n")),
    }
}
