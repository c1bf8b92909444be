//! What goes out by REST: claimed, sent, settled. A call whose fate is unknown is never made again blindly.

use std::fmt;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use std::time::Duration;

use jiff::Timestamp;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::rows::reply;
use super::{OpenWindow, Outcome, ReplyRow, SendKey, Standing, Submission, Submitted};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::TokenSlot;

/// A message for the outbox.
///
/// Added: see [`Outbox`].
#[derive(Clone)]
pub struct NewReply {
    /// The account that sends it.
    pub account: AccountSid,
    /// The token it is sent with, unless the account has credentials of its own.
    pub slot: TokenSlot,
    /// The sender.
    pub us: Address,
    /// Who gets it.
    pub user: Address,
    /// The service whose consents count beside the sender's.
    pub service: Option<MessagingServiceSid>,
    /// The parameters of `POST Messages`, without `StatusCallback` unless it is the bot's own.
    pub params: Form,
    /// Whether it is a template, which no window keeps back.
    pub template: bool,
}

/// A message of the outbox, claimed to be sent or looked for.
///
/// Claimed: see [`Outbox`].
#[derive(Clone)]
#[non_exhaustive]
pub struct OutboundMessage {
    /// Its number.
    pub id: i64,
    /// When it was made, µs since 1970: with the number, its name in the status callback's URL.
    pub created_at: Timestamp,
    /// The account that sends it.
    pub account: AccountSid,
    /// The token it is sent with.
    pub slot: TokenSlot,
    /// The sender.
    pub us: Address,
    /// Who gets it.
    pub user: Address,
    /// The service whose consents count beside the sender's.
    pub service: Option<MessagingServiceSid>,
    /// The parameters of `POST Messages`.
    pub params: Form,
    /// Whether it is a template.
    pub template: bool,
    /// Calls made for it, this one included.
    pub attempt: u32,
    /// Times that Twilio's list was searched for it.
    pub looks: u32,
    /// When the last call began.
    pub sent_at: Option<Timestamp>,
    /// The customer service window, if it was open when the message was claimed; else only a template may be sent.
    pub window: Option<OpenWindow>,
    /// Whether the user is known to agree to templates.
    pub opted_in: bool,
}

/// A message that Twilio has taken and holds until its time.
///
/// Found: see [`Outbox::unwanted`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScheduledMessage {
    /// Its number.
    pub id: i64,
    /// The account that sends it.
    pub account: AccountSid,
    /// The token it was sent with.
    pub slot: TokenSlot,
    /// Twilio's name for it.
    pub sid: MessageSid,
}

/// Where a message of the outbox stands.
///
/// ```
/// use replyhook::store::ReplyState;
///
/// assert_eq!(ReplyState::Suppressed.as_str(), "suppressed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyState {
    /// It waits to be sent.
    Pending,
    /// A call is under way.
    Sending,
    /// A call was made, and whether it was processed is not known.
    Unknown,
    /// Twilio's list does not have it: the operator decides.
    Held,
    /// Twilio has taken it.
    Sent,
    /// It was not sent, and will not be.
    Failed,
    /// The user wants nothing from us.
    Suppressed,
}

impl ReplyState {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Unknown => "unknown",
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Suppressed => "suppressed",
        }
    }
}

/// What became of a call.
///
/// Written down: see [`Outbox`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Twilio has taken it.
    Sent {
        /// Under this SID.
        sid: MessageSid,
        /// With this status.
        status: MessageStatus,
    },
    /// It was not processed: again, not before this.
    Again {
        /// When.
        not_before: Timestamp,
    },
    /// Refused, or given up.
    Failed {
        /// Twilio's code.
        code: Option<ErrorCode>,
        /// In words without content.
        reason: &'static str,
    },
    /// Whether it was processed is not known; look not before this.
    Unknown {
        /// When.
        look_at: Timestamp,
        /// Whether Twilio's list was searched, and does not have it.
        looked: bool,
    },
    /// Not found in Twilio's list: it waits for the operator.
    Held,
}

/// What a status callback tells.
///
/// Made of a [`StatusUpdate`](crate::StatusUpdate), whose example shows what it holds.
#[derive(Debug, Clone)]
pub struct News {
    /// Whose message.
    pub account: AccountSid,
    /// Which.
    pub sid: MessageSid,
    /// Its name in the callback's URL.
    pub reply: Option<String>,
    /// The status.
    pub status: MessageStatus,
    /// Why it failed.
    pub error_code: Option<ErrorCode>,
    /// Our sender.
    pub us: Option<Address>,
    /// The service that it was sent through.
    pub service: Option<MessagingServiceSid>,
    /// The user.
    pub user: Option<Address>,
    /// When it came.
    pub at: Timestamp,
}

/// What news did.
///
/// Told by [`Outbox::news`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewsEffect {
    /// A message of ours moved.
    Moved,
    /// Nothing new.
    Old,
    /// It is not known; kept for a day, in case it is about a call that is not settled.
    Unknown,
}

/// How full the outbox is.
///
/// Asked for: see [`Outbox`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxState {
    /// Waiting or being sent.
    pub pending: u64,
    /// Of unknown fate, being looked for.
    pub unknown: u64,
    /// Waiting for the operator.
    pub held: u64,
    /// When the first of all these was due: when it was made, or when its sender's pace lets it go, which may be to come.
    pub oldest: Option<Timestamp>,
}

/// What goes out by REST.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::signature::TokenSlot;
/// use replyhook::store::{Access, NewReply, Outbox, ReplyState, Settlement, Store, sqlite::SqliteStore};
/// use replyhook::{Form, MessageStatus, Timestamp};
///
/// let (store, now) = (SqliteStore::memory(), Timestamp::UNIX_EPOCH);
/// store.open(Access::Owner).await?;
/// let ready = NewReply {
///     account: "AC00000000000000000000000000000001".parse()?,
///     us: "+15550002222".into(),
///     user: "+15550001111".into(),
///     params: Form::from_iter([("Body", "It is ready.")]),
///     # slot: TokenSlot::Primary, service: None, template: false,
/// };
/// let ids = store.enqueue(vec![ready], now).await?;
/// assert_eq!(store.outbox_state().await?.pending, 1);
/// let claimed = store.claim(10, now).await?;
/// let sent = Settlement::Sent { sid: "SM00000000000000000000000000000001".parse()?, status: MessageStatus::Queued };
/// store.settle(claimed[0].id, sent, now).await?;
/// assert_eq!(store.outgoing(ids[0]).await?.map(|row| row.state), Some(ReplyState::Sent));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError).
pub trait Outbox: Send + Sync {
    /// Claims up to `limit` messages that may be sent now: of one reply only the first, and of one sender to one person
    /// only the oldest, once nothing before it is on its way. In the same step those whose user has opted out are
    /// suppressed. Calls of dead processes become unknown.
    fn claim(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>>;

    /// Writes down what became of a call. A message that was found sent stays so, whoever says otherwise.
    fn settle(&self, id: i64, settlement: Settlement, now: Timestamp) -> Outcome<'_, ()>;

    /// Up to `limit` messages of unknown fate whose time to be looked for has come.
    fn unknown(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>>;

    /// Up to `limit` messages, of those numbered beyond `after`, that Twilio holds until their time and whose user has
    /// opted out since.
    fn unwanted(&self, after: i64, limit: usize) -> Outcome<'_, Vec<ScheduledMessage>>;

    /// Of these SIDs, those that no message of the outbox has.
    fn unclaimed_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> Outcome<'_, Vec<MessageSid>>;

    /// Adds messages that answer nothing.
    fn enqueue(&self, replies: Vec<NewReply>, now: Timestamp) -> Outcome<'_, Vec<i64>>;

    /// Adds a message that answers nothing, if it may be said and its key is free: of any number at once with one key,
    /// one is added. Those of one sender are due one after the other, at its pace.
    fn submit(&self, submission: Submission, now: Timestamp) -> Outcome<'_, Submitted>;

    /// What may be said to a user at a time. Where the sender is the service's SID, an opt-out from any sender counts.
    fn standing(
        &self,
        us: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> Outcome<'_, Standing>;

    /// The number of the message that was submitted with this key.
    fn keyed(&self, key: SendKey) -> Outcome<'_, Option<i64>>;

    /// A message of the outbox by its number, for as long as it is kept.
    fn outgoing(&self, id: i64) -> Outcome<'_, Option<ReplyRow>>;

    /// Takes news of a message. Status only rises, and a user who blocks us is opted out.
    fn news(&self, news: News) -> Outcome<'_, NewsEffect>;

    /// How full it is.
    fn outbox_state(&self) -> Outcome<'_, OutboxState>;
}

/// How long a call of a dead process gets to show itself, by a status callback, before it is looked for.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long one look may take before another begins.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const LOOK: Duration = Duration::from_mins(1);

/// Longest pause before a message is sent again or looked up. A time beyond it was noted before the clock was set back.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_PAUSE: Duration = Duration::from_mins(20);
/// Longest time for which a reply that is still being sent makes later ones wait behind it: a reply out of order is better
/// than none.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_ORDER_WAIT: Duration = Duration::from_mins(1);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl OutboxState {
    /// Counts so many messages in a state, as it is stored, the first of them due then.
    pub(super) fn add(&mut self, state: i64, number: i64, oldest: Timestamp) {
        let number = number.unsigned_abs();
        match state {
            reply::UNKNOWN => self.unknown += number,
            reply::HELD => self.held += number,
            _ => self.pending += number,
        }
        self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
    }
}

impl OutboundMessage {
    /// Its name in the status callback's URL. The time of making is in it, so that another database's callback fits none.
    pub fn name(&self) -> String {
        name(self.id, self.created_at.as_microsecond())
    }
}

pub(super) fn name(id: i64, created_at: i64) -> String {
    format!("{id}-{created_at:x}")
}

/// The number and the time in a name.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn parse_name(name: &str) -> Option<(i64, i64)> {
    let (id, created_at) = name.split_once('-')?;
    Some((id.parse().ok()?, i64::from_str_radix(created_at, 16).ok()?))
}

impl fmt::Debug for NewReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewReply")
            .field("us", &self.us)
            .field("user", &self.user)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundMessage")
            .field("id", &self.id)
            .field("us", &self.us)
            .field("user", &self.user)
            .field("attempt", &self.attempt)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
