//! A message as the journal takes it: what it does to consent is decided here.

use std::sync::Arc;

use super::{ConsentKind, Dispatcher};
use crate::consent::{self, Word};
use crate::message::{InboundMessage, OptOutType};
use crate::signature::TokenSlot;
use crate::store::{Arrival, ArrivalConsent, ConsentHow};
use crate::twiml::Document;

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
            params: message.params.encode(),
            consent: self.consent_of(message),
            attempts: self.limits.crashes.attempts,
            retry_crashed: self.limits.crashes.retry,
            last_answer: self.apology_text(),
            at: message.received_at,
        })
    }

    /// `OptOutType` decides where Twilio sends it, and then Twilio has answered; else a word does.
    fn consent_of(&self, message: &InboundMessage) -> Option<ArrivalConsent> {
        let how = ConsentHow::OptOutType;
        let answer = String::new();
        match message.opt_out_type {
            Some(OptOutType::Stop) => return Some(ArrivalConsent::Stop { how, answer }),
            Some(OptOutType::Start) => return Some(ArrivalConsent::Start { how, answer }),
            Some(OptOutType::Help) => return Some(ArrivalConsent::Help),
            // A kind that Twilio has added: it has been answered, and is no word for the bot.
            Some(_) => return Some(ArrivalConsent::Help),
            None => {}
        }
        let channel = message.channel();
        let answer = |reply: &Document| {
            if consent::answered_by_twilio(channel) {
                return String::new();
            }
            reply.to_saved().unwrap_or_default()
        };
        let how = ConsentHow::Keyword;
        Some(match self.consent.words.meaning(channel, &message.body)? {
            Word::Stop => ArrivalConsent::Stop {
                how,
                answer: answer(&self.consent.stop_reply),
            },
            Word::Start => ArrivalConsent::Start {
                how,
                answer: answer(&self.consent.start_reply),
            },
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
