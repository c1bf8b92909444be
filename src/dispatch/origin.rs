//! Parts of an inbound message that its reply needs.

use crate::address::Address;
use crate::message::InboundMessage;
use crate::reply::{Reply, ReplyMessage, WireMessage, WireRichContent};
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::AuthTokenKind;
use crate::store::NewOutbound;
use crate::twilio::{WireAddresses, wire_params};

/// Account, sender and user of an inbound message.
// The message itself is moved into the handler.
pub(super) struct Origin {
    pub(super) account: AccountSid,
    pub(super) sid: MessageSid,
    auth_token: AuthTokenKind,
    pub(super) sender: Address,
    pub(super) user: Address,
    service: Option<MessagingServiceSid>,
}

impl Origin {
    pub(super) fn of(message: &InboundMessage, auth_token: AuthTokenKind) -> Self {
        Self {
            account: message.account_sid,
            sid: message.message_sid,
            auth_token,
            sender: message.to.clone(),
            user: message.from.clone(),
            service: message.messaging_service_sid,
        }
    }

    /// Returns whether a message of the reply goes to the author of the inbound message.
    pub(super) fn is_sent_to_author(&self, message: &ReplyMessage) -> bool {
        message
            .recipient()
            .is_none_or(|recipient| *recipient == self.user)
    }

    /// Builds the outbox entries of a reply without media.
    pub(super) fn outbound_of(&self, reply: &Reply) -> Vec<NewOutbound> {
        let wire = reply.wire_messages(self.user.channel(), usize::MAX);
        let messages = wire.messages.iter();
        messages.map(|wire| self.outbound(wire)).collect()
    }

    /// Builds the outbox entry of a message of the reply.
    pub(super) fn outbound(&self, wire: &WireMessage<'_>) -> NewOutbound {
        let (sender, user) = (
            wire.from.unwrap_or(&self.sender).clone(),
            wire.to.unwrap_or(&self.user).clone(),
        );
        // With the service as well, its settings apply: opt-outs, Smart Encoding, validity, shortened links. Twilio rejects
        // a `From` outside of the service's senders, which a sender that the bot has chosen may be.
        let service = self.service.filter(|_| sender == self.sender);
        let addresses = WireAddresses {
            to: &user,
            from: Some(&sender),
            service,
        };
        let params = wire_params(wire, &addresses);
        NewOutbound {
            account: self.account,
            auth_token: self.auth_token,
            // The store knows the conversation by these. The call has the addresses as Twilio wrote them.
            sender: sender.normalized(),
            user: user.normalized(),
            // For consent, whatever the sender is.
            service: self.service,
            params,
            // A free-form message, unless it is a template of the bot: the outbox checks the window.
            template: matches!(wire.content, Some(WireRichContent::Template(_))),
        }
    }
}
