//! Comparison of the outbox with Twilio's message list: open messages that Twilio has already sent.

use std::collections::HashSet;

use jiff::Timestamp;

use super::reconciler::{ROWS_PER_QUERY, Reconciler, same_account};
use super::sent::is_sent_outbound;
use crate::address::Address;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid};
use crate::store::{OutboundMessage, OutboundState, SendOutcome, StoreError};
use crate::twilio::{CLOCK_SKEW, Message};

/// A message that the outbox would still send or look up, although Twilio has already sent it.
///
/// See [`Reconciler::already_sent`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AlreadySent {
    /// ID in the outbox.
    pub outbound: i64,
    /// Recipient of the message.
    pub user: Address,
    /// SID that Twilio assigned.
    pub sid: MessageSid,
    /// Status in Twilio's list.
    pub status: MessageStatus,
}

impl Reconciler {
    /// Finds open messages of the outbox that Twilio has already sent, as on a restored backup. Changes nothing.
    ///
    /// Read the list first, and run no server on the store until the messages are marked: it would send them again.
    ///
    /// ```no_run
    /// use replyhook::reconcile::Reconciler;
    /// use replyhook::{AccountSid, Timestamp, store::StoreError, twilio::Message};
    ///
    /// # async fn mark(reconciler: Reconciler, account: AccountSid, listed: Vec<Message>, now: Timestamp)
    /// # -> Result<(), StoreError> {
    /// for sent in reconciler.already_sent(account, &listed, now).await? {
    ///     reconciler.mark_sent(&sent, now).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn already_sent(
        &self,
        account: AccountSid,
        listed: &[Message],
        now: Timestamp,
    ) -> Result<Vec<AlreadySent>, StoreError> {
        // Rows with a REST call first: of several rows with equal content, they match a listed message before a row
        // that is only pending.
        let states = [
            OutboundState::Sending,
            OutboundState::Unknown,
            OutboundState::Pending,
        ];
        self.match_outbox(account, listed, &states, now).await
    }

    /// Matches rows whose REST call has no known result with listed messages. Uses `since` if no listed message has a
    /// time.
    pub(super) async fn match_in_flight(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
    ) -> Result<Vec<AlreadySent>, StoreError> {
        let states = [OutboundState::Sending, OutboundState::Unknown];
        // As of the newest message, and not as of the oldest: if the window closed between them, the worker may have
        // sent a template, and a row with an open window matches its own text only. Twilio's clock may be behind.
        let times = listed.iter().filter_map(Message::created_at);
        let newest = times.max().unwrap_or(since);
        let now = newest.checked_add(CLOCK_SKEW).unwrap_or(newest);
        self.match_outbox(account, listed, &states, now).await
    }

    /// Matches rows of the outbox in these states with listed messages. `now` decides whose window is open.
    async fn match_outbox(
        &self,
        account: AccountSid,
        listed: &[Message],
        states: &[OutboundState],
        now: Timestamp,
    ) -> Result<Vec<AlreadySent>, StoreError> {
        // Keep only rows whose recipient is in the list: an outbox may be large.
        let recipients: HashSet<_> = listed
            .iter()
            .filter_map(|message| message.to.as_ref())
            .collect();
        let mut open = Vec::new();
        for state in states {
            let mut after_id = 0;
            loop {
                let rows = self
                    .store
                    .list_open_outbound(*state, after_id, ROWS_PER_QUERY, now)
                    .await?;
                let Some(last) = rows.last() else { break };
                after_id = last.id;
                let is_candidate = |row: &OutboundMessage| {
                    same_account(row.account, account) && recipients.contains(&row.user)
                };
                open.extend(rows.into_iter().filter(is_candidate));
            }
        }
        // After the rows: if a server records an outcome in between, its SID is not free for another row any more.
        let unmatched = self.unmatched_rest_messages(account, listed).await?;
        // The list is newest first. Rows are in the order of their ids, so match the oldest message first.
        let mut candidates: Vec<_> = listed.iter().rev().collect();
        candidates.retain(|message| unmatched.contains(&message.sid));
        let mut sent = Vec::new();
        for row in open {
            if let Some(index) = candidates
                .iter()
                .position(|message| message.may_match(&row))
            {
                // Each listed message matches one row only.
                let message = candidates.remove(index);
                sent.push(AlreadySent {
                    outbound: row.id,
                    user: row.user,
                    sid: message.sid,
                    status: message.status.clone(),
                });
            }
        }
        Ok(sent)
    }

    /// Records that a message of the outbox was sent.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn mark_sent(&self, sent: &AlreadySent, now: Timestamp) -> Result<(), StoreError> {
        let outcome = SendOutcome::Sent {
            sid: sent.sid,
            status: sent.status.clone(),
        };
        self.store.record_outcome(sent.outbound, outcome, now).await
    }

    /// Returns the messages that were sent via the REST API and belong to no row of the outbox.
    pub(super) async fn unmatched_rest_messages(
        &self,
        account: AccountSid,
        listed: &[Message],
    ) -> Result<HashSet<MessageSid>, StoreError> {
        let is_rest_message = |message: &&Message| {
            is_sent_outbound(message) && message.direction.as_deref() != Some("outbound-reply")
        };
        let sids: Vec<_> = listed
            .iter()
            .filter(is_rest_message)
            .map(|message| message.sid)
            .collect();
        let mut unmatched = HashSet::new();
        for chunk in sids.chunks(ROWS_PER_QUERY as usize) {
            unmatched.extend(self.store.unmatched_sids(account, chunk.to_vec()).await?);
        }
        Ok(unmatched)
    }
}
