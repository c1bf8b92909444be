//! Operations of commands, which run alongside a server, and retention.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::future::StoreFuture;
use super::new_inbound::NewInbound;
use super::outbound_message::{OutboundMessage, OutboundRow, OutboundState};
use super::redacted_params::RedactedParams;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::states::{self, inbound};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};

/// Filter of listed messages.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    /// Only the message with this SID.
    pub sid: Option<MessageSid>,
    /// Only messages of this user, under any of their addresses.
    pub user: Option<Address>,
    /// Account within which the addresses of `user` count. Without one, each account counts by itself.
    pub account: Option<AccountSid>,
    /// True if the same number on other channels is the same user.
    pub all_channels: bool,
    /// Only messages that are shown in this state. `dead` excludes purged messages, which cannot be retried.
    pub state: Option<String>,
    /// Only messages with a lower ID, for paging.
    pub before_id: Option<i64>,
    /// Maximum number of messages.
    pub limit: u32,
}

/// Inbound message as shown to operators.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MessageRow {
    /// ID of the message.
    pub id: i64,
    /// SID of the message.
    pub sid: MessageSid,
    /// Account that received the message.
    pub account: AccountSid,
    /// `received`, `processing`, `answered`, `deferred`, `sent`, `failed`, `held`, `unknown` or `dead`.
    pub state: &'static str,
    /// Number of attempts.
    pub attempt: u32,
    /// Address of the author; `None` once purged.
    pub user: Option<Address>,
    /// End of the conversation's handoff, which may have passed.
    pub handed_off_until: Option<Timestamp>,
    /// Time when the webhook arrived.
    pub received_at: Timestamp,
    /// Reason for the state.
    pub reason: Option<String>,
    /// Replies via the REST API, in order.
    pub replies: Vec<OutboundRow>,
    /// Parameters of the webhook, form-encoded. They contain message content.
    pub params: Option<RedactedParams>,
    /// Saved TwiML response. It contains message content.
    pub response: Option<RedactedParams>,
}

/// Outbound message that is not a reply, as shown to operators. See [`Operator::outbound_messages`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundDetails {
    /// Account that sends the message.
    pub account: AccountSid,
    /// Sender, or the SID of the Messaging Service that chooses one.
    pub sender: Address,
    /// Recipient of the message.
    pub user: Address,
    /// Name of an [`OutboundState`]. A message that Twilio accepted but could not deliver is `failed`.
    pub state: &'static str,
    /// Number of attempts to send the message.
    pub attempt: u32,
    /// Time when the message was queued.
    pub created_at: Timestamp,
    /// Row of the outbox.
    pub message: OutboundRow,
}

/// Age limits of stored data.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Time of the step. A row with a later time was written while the clock was wrong, and counts as old as the next
    /// row.
    pub now: Timestamp,
    /// Texts of messages and replies from before this time are deleted.
    pub texts_before: Timestamp,
    /// Replies, outbound messages and conversations from before this time are deleted.
    pub content_before: Timestamp,
    /// Messages with their keys are deleted from before this time. A redelivery after that would be a new message.
    pub keys_before: Timestamp,
    /// Status callbacks without a matching message are deleted from before this time.
    pub unmatched_status_before: Timestamp,
}

/// Time for which keys outlive content.
// As long as a key is stored, a redelivery, or a message that `reconcile` finds in Twilio's list, is recognized as
// known.
const KEYS: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Age limit of status callbacks without a matching message.
const UNMATCHED_STATUS_RETENTION: SignedDuration = SignedDuration::from_hours(24);

impl Retention {
    /// Returns the limits at `now`, given the retention times of content and of texts.
    pub fn new(content: Duration, texts: Duration, now: Timestamp) -> Self {
        let before = |by: SignedDuration| now.checked_sub(by).unwrap_or(Timestamp::MIN);
        // A retention time beyond the range of times means that nothing expires.
        let age = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self {
            now,
            texts_before: before(age(texts)),
            content_before: before(age(content)),
            keys_before: before(age(content).saturating_add(KEYS)),
            unmatched_status_before: before(UNMATCHED_STATUS_RETENTION),
        }
    }
}

/// Numbers of messages without a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BacklogStats {
    /// Messages queued behind older ones.
    pub received: u64,
    /// Messages with a running handler and an undecided reply path.
    pub processing: u64,
    /// Messages whose reply will take the REST API.
    pub deferred: u64,
    /// Arrival of the oldest message of these three states.
    pub oldest: Option<Timestamp>,
    /// Dead messages that an operator can retry.
    pub dead: u64,
    /// Dead messages whose content expired before a reply.
    pub expired_unanswered: u64,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl BacklogStats {
    /// Adds a number of messages in a stored state, the oldest of which arrived at `oldest`.
    pub(super) fn add(&mut self, state: i64, number: i64, oldest: Timestamp) {
        let number = number.unsigned_abs();
        match state {
            inbound::RECEIVED => self.received += number,
            inbound::PROCESSING => self.processing += number,
            // The queries read open states only, so this is DEFERRED.
            _ => self.deferred += number,
        }
        self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
    }

    /// Adds a number of dead messages with a stored reason.
    pub(super) fn add_dead(&mut self, reason: Option<&str>, number: i64) {
        match reason {
            // An operator has deleted these, so they need no attention.
            Some(states::PURGED) => {}
            Some(states::EXPIRED) => self.expired_unanswered += number.unsigned_abs(),
            _ => self.dead += number.unsigned_abs(),
        }
    }
}

/// Report of a purge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Number of inbound messages whose content was deleted.
    pub messages: u64,
    /// Number of deleted messages of the outbox.
    pub outbound: u64,
    /// Number of deleted consents.
    pub consents: u64,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl PurgeReport {
    /// Adds the report of another account.
    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.outbound += other.outbound;
        self.consents += other.consents;
    }
}

/// Outcome of a step of [`Operator::expire`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExpiryReport {
    /// True if there is more to delete.
    pub has_more: bool,
    /// SIDs of messages without a reply whose content this step deleted.
    pub unanswered: Vec<MessageSid>,
    /// Number of messages whose texts this step deleted.
    pub texts: u64,
    /// Number of messages of the outbox, replies and others, whose content this step deleted.
    pub outbound: u64,
}

/// Minimum pause between two steps.
// Deleted rows lie in pages all over the file, which the next checkpoint has to write. More than some hundred rows per
// second make that checkpoint several times as long.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Part of the time that may be spent on deleting: one in `SHARE`.
// A step holds SQLite's only writer, so that a slow disk needs longer pauses.
const SHARE: u32 = 20;

impl ExpiryReport {
    /// Returns the pause before the next step, which leaves time for messages, given the duration of the last step.
    pub fn pause_after(took: Duration) -> Duration {
        MIN_PAUSE.max(took * (SHARE - 1))
    }
}

/// Operations for commands and for retention.
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Operator: Send + Sync {
    /// Lists inbound messages, newest first.
    fn messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<MessageRow>>;

    /// Lists outbound messages that are not replies, newest first. `sid` and `state` of the filter are those of the
    /// outbound message. A filter with a SID finds replies too, and a message by the SID of its earlier send.
    fn outbound_messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<OutboundDetails>>;

    /// Counts the messages without a reply.
    fn backlog_stats(&self) -> StoreFuture<'_, BacklogStats>;

    /// Queues a failed or dead message for another attempt, and returns false if there is none with this SID.
    ///
    /// The reply takes the REST API. A message whose content was deleted cannot be retried.
    fn retry(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, bool>;

    /// Queues the held and failed replies of an inbound message for sending, and returns their number.
    ///
    /// The parts of the reply that wait behind them follow.
    fn release(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, u64>;

    /// Queues held outbound messages that are not replies for sending, and returns their number.
    ///
    /// With an ID only that message is queued, even if it has failed.
    fn release_outbound(&self, id: Option<i64>, now: Timestamp) -> StoreFuture<'_, u64>;

    /// Queues a message of the outbox for sending again, and returns false if that does not apply.
    ///
    /// It must be held or failed, or Twilio must have reported that it could not deliver the message. A message whose
    /// content was deleted cannot be sent.
    fn send_again(&self, id: i64, now: Timestamp) -> StoreFuture<'_, bool>;

    /// Records a message that a lost journal had replied to, so that it is not handled again.
    ///
    /// Its saved response is empty. A message that is stored already stays as it is.
    fn backfill_answered(&self, message: Arc<NewInbound>) -> StoreFuture<'_, ()>;

    /// Records a received, processing or deferred message as answered, because a lost journal had replied to it.
    ///
    /// Returns false if no message in these states has this SID. Stop every server before the call, because a running
    /// handler would lose its claim.
    fn mark_answered(&self, account: AccountSid, sid: MessageSid) -> StoreFuture<'_, bool>;

    /// Lists up to `limit` messages of the outbox in an open state with an ID above `after`, in the order of their IDs.
    ///
    /// It claims nothing.
    fn list_open_outbound(
        &self,
        state: OutboundState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<OutboundMessage>>;

    /// Deletes the messages, replies, dialogues and addresses of a user in one account. Without an account, it deletes those
    /// of the user with this address in each account.
    ///
    /// Keys of messages stay, so that a redelivery is still a duplicate. The opt-out stays unless `forget_opt_out` is
    /// true.
    fn purge_user(
        &self,
        user: &Address,
        account: Option<AccountSid>,
        forget_opt_out: bool,
    ) -> StoreFuture<'_, PurgeReport>;

    /// Deletes everything, keys and consents included. For the local emulator and tests: acknowledged messages are
    /// lost.
    fn delete_everything(&self) -> StoreFuture<'_, ()>;

    /// Deletes a small number of rows that are older than `retention` allows.
    fn expire(&self, retention: Retention) -> StoreFuture<'_, ExpiryReport>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_limits_are_counted_back_from_now() {
        let day = Duration::from_hours(24);
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let retention = Retention::new(30 * day, 7 * day, now);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(retention.texts_before, at("2026-11-23T00:00:00Z"));
        assert_eq!(retention.content_before, at("2026-10-31T00:00:00Z"));
    }
}
