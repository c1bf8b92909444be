//! Users with several addresses, for operators: their addresses, and the consents that apply.

use jiff::Timestamp;

use super::conversations::{ConsentEntry, ConsentScope, ConsentSource};
use super::future::StoreFuture;
use super::identity_kind::LinkKind;
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// Addresses, consents and conversations of a user.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct UserDetails {
    /// Addresses of the user, of which the first is the one that was asked for.
    pub addresses: Vec<Address>,
    /// Evidence that ties the addresses together.
    pub links: Vec<AddressLink>,
    /// Addresses that are possibly of the same user. They share opt-outs with it and nothing else.
    pub possible_aliases: Vec<Address>,
    /// Pairs of addresses that are two spellings of one number, in Mexico or Brazil.
    pub spellings: Vec<(Address, Address)>,
    /// Consents in every scope, for each address.
    pub consents: Vec<AddressConsent>,
    /// Conversations of the user.
    pub conversations: Vec<UserConversation>,
    /// Entries of the consent ledger, oldest first.
    pub changes: Vec<ConsentEntry>,
}

/// Evidence that two addresses are of one user.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AddressLink {
    /// Account within which the evidence counts.
    pub account: AccountSid,
    /// The two addresses.
    pub addresses: (Address, Address),
    /// Kind of the evidence.
    pub kind: LinkKind,
    /// Sender whose webhook named both, unless an operator tied them.
    pub sender: Option<Address>,
    /// Message that proves it.
    pub evidence: Option<MessageSid>,
    /// Reason of an operator.
    pub note: Option<String>,
    /// Time of the evidence.
    pub at: Timestamp,
}

/// Consent of one address in one scope.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AddressConsent {
    /// The address.
    pub address: Address,
    /// The scope.
    pub scope: ConsentScope,
    /// Opt-out that applies.
    pub opt_out: Option<AppliedOptOut>,
    /// Time of the opt-in that applies.
    pub opted_in: Option<Timestamp>,
}

/// Opt-out that applies to an address. It may have been made under another address of the user.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppliedOptOut {
    /// Address under which the user opted out.
    pub address: Address,
    /// Source of the opt-out.
    pub source: ConsentSource,
    /// Message that proves it.
    pub evidence: Option<MessageSid>,
    /// Note of an operator or program.
    pub note: Option<String>,
    /// Time of the opt-out.
    pub at: Timestamp,
}

/// Conversation of a user with one of your senders.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserConversation {
    /// ID of the conversation.
    pub id: i64,
    /// Your sender.
    pub sender: Address,
    /// Addresses of the user that share the conversation.
    pub addresses: Vec<Address>,
    /// Messaging Service that the sender was last seen in. An opt-out from it covers the sender.
    pub service: Option<MessagingServiceSid>,
    /// Time of the user's last message.
    pub last_inbound: Timestamp,
    /// End of a handoff, which may have passed.
    pub handed_off_until: Option<Timestamp>,
    /// URL that messages are redirected to until then; `None` if the bot is silent.
    pub handed_off_to: Option<String>,
}

/// An operator's merge or split of users.
#[derive(Debug, Clone)]
pub struct UserChange {
    /// Account within which it counts.
    pub account: AccountSid,
    /// Address of the user.
    pub user: Address,
    /// Reason, for the ledger.
    pub reason: String,
    /// Time of the change.
    pub at: Timestamp,
}

/// Users with several addresses.
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Users: Send + Sync {
    /// Returns addresses, consents and conversations of a user in one account. `None` for `account` returns those of the
    /// users who have this address in any account.
    fn user(&self, user: &Address, account: Option<AccountSid>) -> StoreFuture<'_, UserDetails>;

    /// Returns the accounts that know a user.
    fn accounts_of(&self, user: &Address) -> StoreFuture<'_, Vec<AccountSid>>;

    /// Returns all accounts that the store has messages of.
    fn known_accounts(&self) -> StoreFuture<'_, Vec<AccountSid>>;

    /// Returns the Messaging Service that a sender was last seen in. An opt-out from it covers the sender.
    fn service_of_sender(&self, sender: &Address) -> StoreFuture<'_, Option<MessagingServiceSid>>;

    /// Returns the consents of an address in every scope.
    fn consents(&self, user: &Address) -> StoreFuture<'_, Vec<AddressConsent>>;

    /// Ties two addresses to one user. Returns false if an operator has done so already.
    fn merge_users(&self, change: UserChange, other: &Address) -> StoreFuture<'_, bool>;

    /// Splits an address off its user. Returns false if it is tied to no other one.
    fn split_user(&self, change: UserChange) -> StoreFuture<'_, bool>;
}
