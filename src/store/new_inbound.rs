//! Inbound messages as webhooks deliver them, and the effect of consent keywords in them.

use std::fmt;

use jiff::Timestamp;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "rules"))]
use super::conversations::ConsentAction;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::conversations::ConsentRecord;
use super::conversations::{ConsentScope, ConsentSource};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::identity::NamedAddresses;
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::AuthTokenKind;

/// Inbound message as a webhook delivers it. The journal stores it once, however often Twilio delivers it.
#[derive(Clone)]
pub struct NewInbound {
    /// Account that received the message: half of the key for deduplication.
    pub account: AccountSid,
    /// SID of the message: the other half of the key.
    pub sid: MessageSid,
    /// Your sender that the user wrote to.
    pub sender: Address,
    /// Addresses of the author, of which the first is `From`. The others are business-scoped IDs of the same user.
    pub user: Vec<Address>,
    /// Messaging Service that received the message. Consent applies to all senders of the service.
    pub service: Option<MessagingServiceSid>,
    /// Auth token that verified the webhook. REST calls for the reply use the same one.
    pub auth_token: AuthTokenKind,
    /// All parameters of the webhook, form-encoded.
    pub params: String,
    /// Consent keyword, if the message is one.
    pub consent: Option<ConsentKeyword>,
    /// Maximum number of attempts before a redelivery gets [`final_response`](Self::final_response).
    pub max_attempts: u32,
    /// True if a redelivery may start another attempt after a process died during one.
    pub retry_after_crash: bool,
    /// TwiML for redeliveries once all attempts have failed. An empty text means the empty response.
    pub final_response: String,
    /// Time when the webhook arrived.
    pub received_at: Timestamp,
}

/// Keyword in an inbound message that changes consent or asks for help.
///
/// Part of a [`NewInbound`]. The confirmation in here, which is TwiML, becomes the response, and the handler does not
/// run.
#[derive(Clone)]
pub enum ConsentKeyword {
    /// The user opts out.
    Stop {
        /// Source of the keyword.
        source: ConsentSource,
        /// TwiML confirmation. Only the first opt-out gets it.
        confirmation: String,
    },
    /// The user opts in again. If `source` is [`ConsentSource::Keyword`], the message of a user who has not opted out
    /// is an ordinary message.
    Start {
        /// Source of the keyword.
        source: ConsentSource,
        /// TwiML confirmation.
        confirmation: String,
    },
    /// The user asks for help, and Twilio has already replied.
    Help,
}

/// Effect of a new message, given its keyword and its author's opt-out state.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "rules"))]
#[derive(Debug)]
pub(crate) enum ConsentEffect {
    /// The handler gets the message.
    Ordinary,
    /// The author has opted out and gets no reply.
    OptedOut,
    /// The response is `confirmation`, and `change` is recorded. `opted_out` is the author's state afterwards.
    Keyword {
        change: Option<ConsentAction>,
        opted_out: bool,
        confirmation: String,
    },
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "rules"))]
impl ConsentEffect {
    /// Returns the effect of a message with this keyword, given its author's opt-out state. A user who has already opted
    /// out receives no reply, not even a second confirmation.
    // The databases and the examples of a rules file share it, so that an example cannot differ from the server.
    pub(crate) fn of(keyword: Option<&ConsentKeyword>, opted_out: bool) -> Self {
        match keyword {
            // Without a confirmation of ours, since Twilio has sent one.
            Some(ConsentKeyword::Help) => Self::Keyword {
                change: None,
                opted_out,
                confirmation: String::new(),
            },
            // A second STOP falls through to `OptedOut`: no second confirmation. `further_opt_out` has its records.
            Some(ConsentKeyword::Stop { confirmation, .. }) if !opted_out => Self::Keyword {
                change: Some(ConsentAction::OptOut),
                opted_out: true,
                confirmation: confirmation.clone(),
            },
            // "Start" is also an ordinary word, so a keyword counts only if it takes back an opt-out. Twilio's
            // `OptOutType` always counts, because Twilio itself has handled the message as a keyword.
            Some(ConsentKeyword::Start {
                source,
                confirmation,
            }) if opted_out || *source != ConsentSource::Keyword => Self::Keyword {
                change: opted_out.then_some(ConsentAction::Resume),
                opted_out: false,
                confirmation: confirmation.clone(),
            },
            _ if opted_out => Self::OptedOut,
            _ => Self::Ordinary,
        }
    }
}

impl NewInbound {
    /// Returns the scopes that a consent keyword applies to: the Messaging Service first, if there is one, then the
    /// sender.
    pub fn scopes(&self) -> Vec<ConsentScope> {
        let service = self.service.map(ConsentScope::Service);
        service
            .into_iter()
            .chain([ConsentScope::Sender(self.sender.clone())])
            .collect()
    }

    /// Returns the keys of the addresses that the message names. `None` if it has none, which no webhook does.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn named_addresses(&self) -> Option<NamedAddresses> {
        NamedAddresses::of(&self.user)
    }

    /// Applies the consent keyword, given the author's opt-out state.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn apply_keyword(&self, opted_out: bool) -> ConsentEffect {
        ConsentEffect::of(self.consent.as_ref(), opted_out)
    }

    /// Returns the records of a STOP from a user who has already opted out; `None` for other messages.
    ///
    /// The earlier opt-out may be of another address. When it ends, this address must stay opted out. It may also be older
    /// than the START of an address that is tied to this one only later.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn further_opt_out(
        &self,
        effect: &ConsentEffect,
        scopes: &[ConsentScope],
    ) -> Option<Vec<ConsentRecord>> {
        let is_stop = matches!(self.consent, Some(ConsentKeyword::Stop { .. }));
        let has_opted_out = matches!(effect, ConsentEffect::OptedOut);
        (is_stop && has_opted_out).then(|| self.ledger_records(ConsentAction::OptOut, scopes))
    }

    /// Returns the ledger records of a change in `scopes`, under all addresses that the message names.
    ///
    /// An opt-out is recorded for the Messaging Service, or for the sender if there is none. A resumption is recorded
    /// for both.
    // Under each address and not only under `From`, so that the opt-out stays with both if they are split.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn ledger_records(
        &self,
        action: ConsentAction,
        mut scopes: &[ConsentScope],
    ) -> Vec<ConsentRecord> {
        let source = match &self.consent {
            Some(ConsentKeyword::Stop { source, .. } | ConsentKeyword::Start { source, .. }) => {
                *source
            }
            Some(ConsentKeyword::Help) | None => return Vec::new(),
        };
        // The service's opt-out covers the sender. A resumption has to clear an opt-out in either scope.
        if action == ConsentAction::OptOut {
            scopes = scopes.get(..1).unwrap_or_default();
        }
        let record = |user: &Address, scope: &ConsentScope| ConsentRecord {
            scope: scope.clone(),
            user: user.clone(),
            action,
            source,
            evidence: Some(self.sid),
            note: None,
            at: self.received_at,
        };
        let Some(named) = self.named_addresses() else {
            return Vec::new();
        };
        let users = named.members().map(|member| &member.address);
        users
            .flat_map(|user| scopes.iter().map(move |scope| record(user, scope)))
            .collect()
    }
}

// `Debug` output ends up in logs and panics, so these implementations show no message content.

impl fmt::Debug for ConsentKeyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop { .. } => "Stop",
            Self::Start { .. } => "Start",
            Self::Help => "Help",
        })
    }
}

impl fmt::Debug for NewInbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewInbound")
            .field("account", &self.account)
            .field("sid", &self.sid)
            .field("sender", &self.sender)
            .field("user", &self.user)
            .field("consent", &self.consent)
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}
