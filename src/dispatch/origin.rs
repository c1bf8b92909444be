//! What an answer needs of the message it answers.

use crate::address::Address;
use crate::form::Form;
use crate::message::InboundMessage;
use crate::reply::{ReplyMessage, WireMessage};
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::TokenSlot;
use crate::store::{NewReply, ReplyQueue};

/// Whose it is, and who talks with whom.
pub(super) struct Origin {
    pub(super) account: AccountSid,
    pub(super) sid: MessageSid,
    slot: TokenSlot,
    us: Address,
    pub(super) user: Address,
    service: Option<MessagingServiceSid>,
}

impl Origin {
    pub(super) fn of(message: &InboundMessage, slot: TokenSlot) -> Self {
        Self {
            account: message.account_sid,
            sid: message.message_sid,
            slot,
            us: message.to.clone(),
            user: message.from.clone(),
            service: message.messaging_service_sid,
        }
    }

    /// Whether a message of the reply goes to the author.
    pub(super) fn hears(&self, said: &ReplyMessage) -> bool {
        said.recipient()
            .is_none_or(|recipient| *recipient == self.user)
    }

    /// The queue that a reply to the author belongs to.
    pub(super) fn queue(&self) -> ReplyQueue {
        ReplyQueue {
            sender: self.us.clone(),
            user: self.user.clone(),
        }
    }

    /// A message of the reply as REST takes it.
    pub(super) fn reply(&self, wire: &WireMessage<'_>) -> NewReply {
        let (us, user) = (
            wire.from.unwrap_or(&self.us).clone(),
            wire.to.unwrap_or(&self.user).clone(),
        );
        let text = Some(&*wire.text).filter(|text| !text.is_empty());
        let single = [
            ("To", Some(user.as_str())),
            ("From", Some(us.as_str())),
            ("Body", text),
            ("StatusCallback", wire.status_callback),
        ];
        let single = single
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let media = wire
            .media
            .iter()
            .filter_map(|media| Some(("MediaUrl", media.link()?)));
        let params: Form = single.chain(media).collect();
        NewReply {
            account: self.account,
            slot: self.slot,
            us,
            user,
            service: self.service,
            params,
            template: false,
        }
    }
}
