//! The outbox against Twilio's list: what it would send, and was sent.

use std::collections::HashSet;

use jiff::Timestamp;

use super::sent::went_out;
use super::{ROWS, Reconciler, same};
use crate::address::Address;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid};
use crate::store::{OutboundMessage, ReplyState, Settlement, StoreError};
use crate::twilio::Message;

/// A message that the outbox would send, or look for, and that Twilio has.
///
/// Found and marked: see [`Reconciler::sent_before`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SentBefore {
    /// Its number in the outbox.
    pub reply: i64,
    /// Who got it.
    pub user: Address,
    /// Under which SID.
    pub sid: MessageSid,
    /// How far it has come.
    pub status: MessageStatus,
}

impl Reconciler {
    /// What the outbox would send, or look for, although Twilio has it: a restored backup knows only that it waits. Give it
    /// a list that was made before, and no server that runs on the store meanwhile. Changes nothing.
    ///
    /// ```no_run
    /// use replyhook::reconcile::Reconciler;
    /// use replyhook::{AccountSid, Timestamp, store::StoreError, twilio::Message};
    ///
    /// # async fn mark(reconciler: Reconciler, account: AccountSid, listed: Vec<Message>, now: Timestamp)
    /// # -> Result<(), StoreError> {
    /// for sent in reconciler.sent_before(account, &listed, now).await? {
    ///     reconciler.mark_sent(&sent, now).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sent_before(
        &self,
        account: AccountSid,
        listed: &[Message],
        now: Timestamp,
    ) -> Result<Vec<SentBefore>, StoreError> {
        // Those first for which a call was made: what is alike is theirs.
        let states = [
            ReplyState::Sending,
            ReplyState::Unknown,
            ReplyState::Pending,
        ];
        self.sent_of(account, listed, &states, now).await
    }

    /// What of the outbox is open in these states, and in the list.
    pub(super) async fn sent_of(
        &self,
        account: AccountSid,
        listed: &[Message],
        states: &[ReplyState],
        now: Timestamp,
    ) -> Result<Vec<SentBefore>, StoreError> {
        let written_to: HashSet<_> = listed.iter().filter_map(|one| one.to.as_ref()).collect();
        let mut open = Vec::new();
        for state in states {
            let mut after = 0;
            loop {
                let rows = self.store.open_replies(*state, after, ROWS, now).await?;
                let Some(last) = rows.last() else { break };
                after = last.id;
                let ours = |row: &OutboundMessage| {
                    same(row.account, account) && written_to.contains(&row.user)
                };
                open.extend(rows.into_iter().filter(ours));
            }
        }
        // Asked afterwards: what was settled meanwhile is not free any more.
        let free = self.unclaimed(account, listed).await?;
        let mut left: Vec<_> = listed.iter().rev().collect();
        left.retain(|one| free.contains(&one.sid));
        let mut sent = Vec::new();
        for row in open {
            if let Some(own) = left.iter().position(|one| one.may_be(&row)) {
                let own = left.remove(own);
                sent.push(SentBefore {
                    reply: row.id,
                    user: row.user,
                    sid: own.sid,
                    status: own.status.clone(),
                });
            }
        }
        Ok(sent)
    }

    /// Writes down that a message of the outbox was sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_sent(&self, sent: &SentBefore, now: Timestamp) -> Result<(), StoreError> {
        let settlement = Settlement::Sent {
            sid: sent.sid,
            status: sent.status.clone(),
        };
        self.store.settle(sent.reply, settlement, now).await
    }

    /// What Twilio has sent by REST, and no message of the outbox is.
    pub(super) async fn unclaimed(
        &self,
        account: AccountSid,
        listed: &[Message],
    ) -> Result<HashSet<MessageSid>, StoreError> {
        let by_rest = |message: &&Message| {
            went_out(message) && message.direction.as_deref() != Some("outbound-reply")
        };
        let sids: Vec<_> = listed
            .iter()
            .filter(by_rest)
            .map(|message| message.sid)
            .collect();
        let mut free = HashSet::new();
        for some in sids.chunks(ROWS as usize) {
            free.extend(self.store.unclaimed_sids(account, some.to_vec()).await?);
        }
        Ok(free)
    }
}
