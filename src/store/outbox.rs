//! Outbox: messages to send via the REST API. Each is claimed, sent, and its outcome recorded.
//!
//! A REST call with an unknown result is never repeated blindly: Twilio's message list is searched first.

use std::time::Duration;

use jiff::Timestamp;

use super::conversations::ConsentScope;
use super::future::StoreFuture;
use super::outbound_message::{
    NewOutbound, OutboundMessage, OutboundRow, ScheduledMessage, SendOutcome,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::states::outbound;
use super::submission::{IdempotencyKey, KeyedMessage, SendEligibility, Submission, SubmitOutcome};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// Status callback, as the outbox uses it.
#[derive(Debug, Clone)]
pub struct StatusEvent {
    /// Account that sent the message.
    pub account: AccountSid,
    /// SID of the message.
    pub sid: MessageSid,
    /// [Name](OutboundMessage::name) of the message from the callback's URL.
    pub outbound: Option<String>,
    /// Reported status.
    pub status: MessageStatus,
    /// Reason of a failure.
    pub error_code: Option<ErrorCode>,
    /// Sender of the message.
    pub sender: Option<Address>,
    /// Messaging Service that sent the message.
    pub service: Option<MessagingServiceSid>,
    /// Addresses of the recipient, of which the first is `To`. The others are its business-scoped IDs.
    pub user: Vec<Address>,
    /// Time when the callback arrived.
    pub at: Timestamp,
}

/// Effect of a [`StatusEvent`], as [`Outbox::apply_status`] returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusEffect {
    /// The status of a message has advanced.
    Applied,
    /// The message failed for a reason that passes by itself, and is queued for a second send.
    QueuedAgain,
    /// The content of the message was refused, and its text is queued.
    QueuedAsText,
    /// The message already has this status or a later one.
    Stale,
    /// No message in the outbox has the SID. The event is stored for a day, in case its REST call has not ended yet.
    Unmatched,
}

/// Number of open messages in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStats {
    /// Messages that wait to be sent, or are being sent.
    pub pending: u64,
    /// Messages that are looked up after a call with unknown result.
    pub unknown: u64,
    /// Messages that wait for an operator.
    pub held: u64,
    /// Earliest due time of all these: the time of queueing, or the send time from the rate limit, which may lie ahead.
    pub oldest: Option<Timestamp>,
}

/// Maximum number of searches of one claim.
///
/// A stopped message makes way for the next one of its reply or of its user, so the claim searches again. A user who has opted out
/// may have thousands of messages, and their claim must not keep the store from accepting messages.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_ROUNDS: usize = 16;

/// Outcome of [`Outbox::claim_with_wait`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClaimedOutbox {
    /// Claimed messages, to be sent.
    pub messages: Vec<OutboundMessage>,
    /// Messages that this call suppressed, because their users have opted out.
    pub suppressed: Vec<OutboundMessage>,
    /// Messages that this call failed, because their addresses are of other users now.
    pub new_owner: Vec<OutboundMessage>,
}

/// Outbox of messages that are sent via the REST API.
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Outbox: Send + Sync {
    /// Claims up to `limit` messages that may be sent now.
    ///
    /// Messages of one sender to one user are claimed one after the other, oldest first, and so are the parts of a
    /// reply. Messages whose user has opted out are suppressed in the same transaction. Messages that were addressed to
    /// a former user of their address fail. Calls of dead processes become unknown.
    fn claim(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        let claimed = self.claim_with_wait(limit, Duration::ZERO, now);
        Box::pin(async move { Ok(claimed.await?.messages) })
    }

    /// As [`claim`](Self::claim). A part of a reply also waits until the part before it is delivered or read, has failed,
    /// or was sent at least `wait` ago.
    fn claim_with_wait(
        &self,
        limit: usize,
        wait: Duration,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedOutbox>;

    /// Records the outcome of a call or a lookup. A message that is known to be sent stays sent.
    fn record_outcome(&self, id: i64, outcome: SendOutcome, now: Timestamp) -> StoreFuture<'_, ()>;

    /// Records that this process looks up or makes the content of a claimed message at Twilio, before the call that sends it.
    /// Returns false if another process has claimed the message since.
    ///
    /// If the process ends in this time, the message becomes pending again, and not unknown. It ends with the outcome
    /// [`Prepared`](SendOutcome::Prepared), or one without a call.
    fn begin_preparation(&self, id: i64) -> StoreFuture<'_, bool>;

    /// Makes the messages of an account that wait for a retry due now. The rate limit of their sender still holds.
    fn end_retry_delays(&self, account: AccountSid, now: Timestamp) -> StoreFuture<'_, ()>;

    /// Claims up to `limit` messages with an unknown result whose lookup is due.
    fn claim_lookups(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>>;

    /// Lists up to `limit` messages with an ID above `after` that Twilio holds until their send time, although their
    /// user has opted out, or their address is of another user now.
    fn scheduled_to_cancel(
        &self,
        after: i64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<ScheduledMessage>>;

    /// Returns those of the given SIDs that belong to no message in the outbox.
    fn unmatched_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> StoreFuture<'_, Vec<MessageSid>>;

    /// Queues outbound messages that are not replies, and returns their IDs. Consent and window are checked at the
    /// claim.
    fn enqueue(&self, messages: Vec<NewOutbound>, now: Timestamp) -> StoreFuture<'_, Vec<i64>>;

    /// Queues the confirmation of an opt-out, as [`enqueue`](Self::enqueue) does. It is sent although its user has opted
    /// out.
    fn enqueue_confirmation(
        &self,
        messages: Vec<NewOutbound>,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<i64>>;

    /// Queues an outbound message, if the user may receive it and its idempotency key is free.
    ///
    /// Of concurrent submissions with one key, one is queued. The rate limit of the sender assigns the send time.
    fn submit(&self, submission: Submission, now: Timestamp) -> StoreFuture<'_, SubmitOutcome>;

    /// Returns consent and customer service window of a user at a given time.
    ///
    /// If `sender` is the SID of the service, which chooses the sender later, an opt-out from any sender counts.
    fn eligibility(
        &self,
        sender: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> StoreFuture<'_, SendEligibility>;

    /// Returns the account of a sender or Messaging Service, if a message has ever come to it.
    fn account_of_sender(&self, scope: &ConsentScope) -> StoreFuture<'_, Option<AccountSid>>;

    /// Returns the message that was submitted with this key.
    fn find_by_key(&self, key: IdempotencyKey) -> StoreFuture<'_, Option<KeyedMessage>>;

    /// Returns a message of the outbox by its ID, until retention deletes it.
    fn outbound(&self, id: i64) -> StoreFuture<'_, Option<OutboundRow>>;

    /// Applies a status callback. A status never moves backwards.
    ///
    /// A message that Twilio accepted and then reports as `failed` is queued for one other send, a minute later, if the
    /// error code is one that passes by itself. The claim checks consent and window again.
    ///
    /// An error code for a user who has opted out at Twilio or has blocked the sender records an opt-out.
    fn apply_status(&self, event: StatusEvent) -> StoreFuture<'_, StatusEffect>;

    /// Returns the numbers of open messages.
    fn outbox_stats(&self) -> StoreFuture<'_, OutboxStats>;
}

/// Delay before the lookup of a call that a dead process has made. A status callback may resolve it until then.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const LOOKUP_GRACE: Duration = Duration::from_secs(2);
/// Time after which a lookup without an outcome is given to another worker.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_mins(1);

/// Maximum pause before a retry or lookup. A stored time further ahead dates from before the clock was set back, and is
/// reset.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_PAUSE: Duration = Duration::from_mins(20);
/// Maximum age of an unsent reply that later replies wait for. During an outage of the REST API, a reply out of order
/// is better than none.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_ORDER_WAIT: Duration = Duration::from_mins(1);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl OutboxStats {
    /// Adds a number of messages in a stored state, the first of which is due at `oldest`.
    pub(super) fn add(&mut self, state: i64, number: i64, oldest: Timestamp) {
        let number = number.unsigned_abs();
        match state {
            outbound::UNKNOWN => self.unknown += number,
            outbound::HELD => self.held += number,
            // The queries read open states only, so this is PENDING or SENDING.
            _ => self.pending += number,
        }
        self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
    }
}
