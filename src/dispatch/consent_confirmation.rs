//! Confirmation of a consent keyword via the REST API.

use super::dispatcher::Dispatcher;
use super::origin::Origin;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::signature::AuthTokenKind;
use crate::store::ConsentKeyword;
use crate::twiml::interpreter::rendered_messages;

impl Dispatcher {
    /// Queues the confirmation of a consent keyword for the REST API, if it has one.
    // Before the response, so that the acknowledged keyword has its confirmation in the outbox. If this fails or the process
    // ends, the user gets none; the change of consent is stored already.
    pub(super) async fn confirm_via_rest(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) {
        let keyword = self.consent.meaning(message);
        let Some(
            ConsentKeyword::Stop { confirmation, .. } | ConsentKeyword::Start { confirmation, .. },
        ) = &keyword
        else {
            return;
        };
        let is_opt_out = matches!(keyword, Some(ConsentKeyword::Stop { .. }));
        let texts = rendered_messages(confirmation).into_iter();
        let Some(reply) = texts.map(|text| Reply::text(text.body)).next() else {
            return;
        };
        let outbound = Origin::of(message, auth_token).outbound_of(&reply);
        let now = self.clock.now();
        let queued = if is_opt_out {
            let queued = self.store.enqueue_confirmation(outbound, now);
            self.timed("enqueue_confirmation", queued).await.map(|_| ())
        } else {
            let queued = self.store.enqueue(outbound, now);
            self.timed("enqueue", queued).await.map(|_| ())
        };
        if queued.is_err() {
            tracing::warn!(message_sid = %message.message_sid, "the confirmation of a consent keyword could not be queued; the user gets none");
        }
        self.outbox.notify_one();
    }
}
