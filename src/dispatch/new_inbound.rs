//! Journal entry of an inbound message, with its consent keyword.

use std::sync::Arc;

use super::dispatcher::Dispatcher;
use crate::address::Address;
use crate::message::InboundMessage;
use crate::signature::AuthTokenKind;
use crate::store::{ConsentKeyword, NewInbound};

impl Dispatcher {
    /// Returns the consent keyword of a message, whose confirmation becomes the response.
    fn consent_keyword(&self, message: &InboundMessage) -> Option<ConsentKeyword> {
        let mut keyword = self.consent.meaning(message);
        if self.limits.is_rest_only
            && let Some(
                ConsentKeyword::Stop { confirmation, .. }
                | ConsentKeyword::Start { confirmation, .. },
            ) = &mut keyword
        {
            // `confirm_via_rest` sends it.
            confirmation.clear();
        }
        keyword
    }

    /// Builds the journal entry of a message.
    pub(super) fn new_inbound(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Arc<NewInbound> {
        let other = message.external_user_id.as_ref().map(Address::normalized);
        // The business-scoped user id as a second address, unless it is `From` already: the store merges the
        // conversations of both into one.
        let other = other.filter(|other| *other != message.from);
        Arc::new(NewInbound {
            account: message.account_sid,
            sid: message.message_sid,
            sender: message.to.normalized(),
            user: std::iter::once(message.from.normalized())
                .chain(other)
                .collect(),
            service: message.messaging_service_sid,
            auth_token,
            params: message.params.as_received().into_owned(),
            consent: self.consent_keyword(message),
            max_attempts: self.limits.crashes.max_attempts,
            retry_after_crash: self.limits.crashes.retry,
            // The store saves and returns this for a redelivery without attempts left.
            final_response: self.fallback_twiml(),
            received_at: message.received_at,
        })
    }
}
