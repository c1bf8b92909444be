//! What operators look at and do, beside a running server.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Arrival, OutboundMessage, Outcome, ReplyState};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::store::rows::{self, inbound};

/// Which messages to list, newest first.
///
/// Listed with: see [`Operator`].
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    /// Only this one.
    pub sid: Option<MessageSid>,
    /// Only those of this user.
    pub user: Option<Address>,
    /// Only those in this state, as shown; `dead` leaves out those that were purged, which an operator has dealt with.
    pub state: Option<String>,
    /// Only those with a lower number: for paging.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A message as the operator sees it.
///
/// Listed: see [`Operator`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MessageRow {
    /// Its number.
    pub id: i64,
    /// Its SID.
    pub sid: MessageSid,
    /// Its account.
    pub account: AccountSid,
    /// `received handling answered deferred sent failed held unknown dead`.
    pub state: &'static str,
    /// Attempts at handling it.
    pub attempt: u32,
    /// Who wrote; `None` once purged.
    pub user: Option<Address>,
    /// Until when its conversation is handed over, or was.
    pub handed_over_until: Option<Timestamp>,
    /// When it came.
    pub received_at: Timestamp,
    /// Why it stands where it stands.
    pub reason: Option<String>,
    /// What goes out by REST, in order.
    pub replies: Vec<ReplyRow>,
    /// Its parameters, form-encoded: content.
    pub params: Option<super::TakenParams>,
    /// The saved TwiML: content.
    pub answer: Option<super::TakenParams>,
}

/// A message of the outbox as the operator sees it.
///
/// Looked at: see [`Outbox`](super::Outbox).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplyRow {
    /// Its number.
    pub id: i64,
    /// Where it stands.
    pub state: ReplyState,
    /// Twilio's SID for it.
    pub sid: Option<MessageSid>,
    /// What became of it after that, in Twilio's word.
    pub status: Option<String>,
    /// Why it failed.
    pub error_code: Option<u32>,
    /// In words.
    pub reason: Option<String>,
    /// The parameters of `POST Messages`, form-encoded: content.
    pub params: Option<super::TakenParams>,
}

/// A message that answers nothing, as the operator sees it.
///
/// Listed: see [`Operator`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutgoingRow {
    /// The account that sends it.
    pub account: AccountSid,
    /// The sender, or the service that chooses one.
    pub us: Address,
    /// Who gets it.
    pub user: Address,
    /// `pending sending unknown held sent failed suppressed`; one that Twilio took and could not deliver has failed.
    pub state: &'static str,
    /// Calls made for it.
    pub attempt: u32,
    /// When it was taken.
    pub created_at: Timestamp,
    /// The message itself.
    pub message: ReplyRow,
}

/// How long what is kept.
///
/// ```
/// use std::time::Duration;
/// use replyhook::Timestamp;
/// use replyhook::store::Retention;
///
/// let day = Duration::from_hours(24);
/// let retention = Retention::new(30 * day, 7 * day, "2026-11-30T00:00:00Z".parse()?);
/// assert_eq!(retention.texts_before, "2026-11-23T00:00:00Z".parse::<Timestamp>()?);
/// assert_eq!(retention.content_before, "2026-10-31T00:00:00Z".parse::<Timestamp>()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The time of the step: a message from after it was written while the clock was wrong, and is as old as the next one.
    pub now: Timestamp,
    /// Texts of what came and went are forgotten from here back.
    pub texts_before: Timestamp,
    /// All content is.
    pub content_before: Timestamp,
    /// Keys are: from here back a repeat would be a new message.
    pub keys_before: Timestamp,
    /// News of messages that nobody knows is.
    pub news_before: Timestamp,
}

/// Keys stay so much longer than content.
const KEYS: SignedDuration = SignedDuration::from_hours(400 * 24);
/// News of unknown messages stays so long.
const NEWS: SignedDuration = SignedDuration::from_hours(24);

impl Retention {
    /// What is old enough `now`, where content is kept so long and texts so long.
    pub fn new(content: Duration, texts: Duration, now: Timestamp) -> Self {
        let before = |by: SignedDuration| now.checked_sub(by).unwrap_or(Timestamp::MIN);
        let age = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self {
            now,
            texts_before: before(age(texts)),
            content_before: before(age(content)),
            keys_before: before(age(content).saturating_add(KEYS)),
            news_before: before(NEWS),
        }
    }
}

/// How many messages have no answer yet, or never got one.
///
/// Asked for: see [`Operator`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenMessages {
    /// Waiting for their turn.
    pub received: u64,
    /// With their handler.
    pub handling: u64,
    /// To be answered by REST, with their handler or before it.
    pub deferred: u64,
    /// When the oldest of all these came.
    pub oldest: Option<Timestamp>,
    /// Dead, and an operator may have them handled again.
    pub dead: u64,
    /// Dead, and their content was deleted by age before they were answered.
    pub expired_unanswered: u64,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl OpenMessages {
    /// Counts so many messages in a state, as it is stored, the oldest of them come then.
    pub(super) fn add(&mut self, state: i64, number: i64, oldest: Timestamp) {
        let number = number.unsigned_abs();
        match state {
            inbound::RECEIVED => self.received += number,
            inbound::HANDLING => self.handling += number,
            _ => self.deferred += number,
        }
        self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
    }

    /// Counts so many dead messages with a reason, as it is stored.
    pub(super) fn add_dead(&mut self, reason: Option<&str>, number: i64) {
        match reason {
            Some(rows::PURGED) => {}
            Some(rows::EXPIRED) => self.expired_unanswered += number.unsigned_abs(),
            _ => self.dead += number.unsigned_abs(),
        }
    }
}

/// What was deleted.
///
/// Told by: see [`Operator`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Messages whose content is gone.
    pub messages: u64,
    /// Messages of the outbox.
    pub replies: u64,
    /// Opt-outs and opt-ins.
    pub consents: u64,
}

/// The outcome of a step of [`Operator::expire`].
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use replyhook::Timestamp;
/// use replyhook::store::{Access, Expired, Operator, Retention, Store, sqlite::SqliteStore};
///
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// let day = Duration::from_hours(24);
/// let retention = Retention::new(30 * day, 7 * day, Timestamp::UNIX_EPOCH);
/// let mut begun = std::time::Instant::now();
/// while store.expire(retention).await?.more {
///     tokio::time::sleep(Expired::pause_after(begun.elapsed())).await;
///     begun = std::time::Instant::now();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Expired {
    /// True if there is more to delete.
    pub more: bool,
    /// Messages that were never answered, and whose content is gone now.
    pub unanswered: Vec<MessageSid>,
}

/// Between two steps, at least. Deleted rows are in pages all over the file, which a checkpoint has to write while messages
/// wait: more than some hundred rows a second make it several times as long.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// One part in so many of the time is for deleting.
const SHARE: u32 = 20;

impl Expired {
    /// The pause before the next step, after one that took so long: messages are written meanwhile.
    ///
    /// ```
    /// use std::time::Duration;
    /// use replyhook::store::Expired;
    ///
    /// assert_eq!(Expired::pause_after(Duration::from_millis(2)), Duration::from_millis(100));
    /// assert_eq!(Expired::pause_after(Duration::from_millis(100)), Duration::from_millis(1900));
    /// ```
    pub fn pause_after(took: Duration) -> Duration {
        MIN_PAUSE.max(took * (SHARE - 1))
    }
}

/// What operators look at and do.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, MessageFilter, Operator, Purged, Store, sqlite::SqliteStore};
///
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// let failed = MessageFilter { state: Some("failed".to_owned()), limit: 20, ..MessageFilter::default() };
/// for row in store.messages(failed).await? {
///     println!("{} after {} attempts: {}", row.sid, row.attempt, row.reason.unwrap_or_default());
/// }
/// let purged = store.purge_user(&"whatsapp:+15550001111".into(), false).await?;
/// assert_eq!(purged, Purged::default(), "nobody of this number ever wrote");
/// assert_eq!(store.open_messages().await?.oldest, None, "everything is answered");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError).
pub trait Operator: Send + Sync {
    /// Lists messages, newest first.
    fn messages(&self, filter: MessageFilter) -> Outcome<'_, Vec<MessageRow>>;

    /// Lists messages that answer nothing, newest first: `sid` is Twilio's for one, `state` that of an [`OutgoingRow`].
    fn outgoing_messages(&self, filter: MessageFilter) -> Outcome<'_, Vec<OutgoingRow>>;

    /// How many messages have no answer yet, or never got one.
    fn open_messages(&self) -> Outcome<'_, OpenMessages>;

    /// Lets a message that failed, or is dead, be handled again; its answer goes by REST. Returns whether there was one.
    fn retry(&self, sid: MessageSid, now: Timestamp) -> Outcome<'_, bool>;

    /// Sends what is held or failed of a message's reply, and with it the rest. Returns how many were freed.
    fn release(&self, sid: MessageSid, now: Timestamp) -> Outcome<'_, u64>;

    /// Sends what is held or failed of messages that answer nothing: the one of this number, or all that are held. Returns
    /// how many were freed.
    fn release_outgoing(&self, id: Option<i64>, now: Timestamp) -> Outcome<'_, u64>;

    /// Keeps a message that was answered before, which only Twilio knows: as answered with nothing, so that nobody handles
    /// it. One that is kept already stays as it is.
    fn enter_answered(&self, arrival: Arc<Arrival>) -> Outcome<'_, ()>;

    /// Up to `limit` messages of the outbox in an open state, in the order of their numbers, beginning after number `after`.
    /// Claims nothing.
    fn open_replies(
        &self,
        state: ReplyState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Outcome<'_, Vec<OutboundMessage>>;

    /// Forgets what a user said and was told, their dialogue and their number. Keys and the opt-out stay, unless
    /// `forget_opt_out`.
    fn purge_user(&self, user: &Address, forget_opt_out: bool) -> Outcome<'_, Purged>;

    /// Forgets everything, keys and consents included. For a desk on which a test begins anew: what was acknowledged is
    /// gone with the rest.
    fn forget_all(&self) -> Outcome<'_, ()>;

    /// Deletes what is older than it may be, a step at a time.
    fn expire(&self, retention: Retention) -> Outcome<'_, Expired>;
}
