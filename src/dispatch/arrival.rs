//! A message as the journal takes it, with what it does to consent.

use std::sync::Arc;

use super::{ConsentKind, Dispatcher};
use crate::message::InboundMessage;
use crate::signature::TokenSlot;
use crate::store::{Arrival, ArrivalConsent};

impl Dispatcher {
    pub(super) fn arrival(&self, message: &InboundMessage, slot: TokenSlot) -> Arc<Arrival> {
        let other = message.external_user_id.clone();
        let other = other.filter(|other| *other != message.from);
        Arc::new(Arrival {
            account: message.account_sid,
            sid: message.message_sid,
            us: message.to.clone(),
            user: std::iter::once(message.from.clone()).chain(other).collect(),
            service: message.messaging_service_sid,
            slot,
            params: message.params.as_it_came().into_owned(),
            consent: self.consent.meaning(message),
            attempts: self.limits.crashes.attempts,
            retry_crashed: self.limits.crashes.retry,
            last_answer: self.apology_text(),
            at: message.received_at,
        })
    }
}

impl ConsentKind {
    /// The label's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OptOut => "opt_out",
            Self::OptIn => "opt_in",
            Self::Help => "help",
        }
    }

    pub(super) fn of(consent: &ArrivalConsent) -> Self {
        match consent {
            ArrivalConsent::Stop { .. } => Self::OptOut,
            ArrivalConsent::Start { .. } => Self::OptIn,
            ArrivalConsent::Help => Self::Help,
        }
    }
}
