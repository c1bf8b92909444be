//! The methods of [`PostgresStore`], each with its kind of transaction. Those for operators are in `operator_methods`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::calls::BEGIN;
use super::completion::CompletionParams;
use super::new_outbound::Columns;
use super::store::PostgresStore;
use super::{
    accept, accept_usual, backfill, backlog, claims, complete_inline, complete_via_rest,
    conversations, journal, outbox, outbox_claim, reading, submission,
};
use crate::address::Address;
use crate::choice::{OpenQuestion, QuestionId};
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::conversations::{
    ConsentEntry, ConsentRecord, ConsentScope, ConsentState, ConsentStatement, Conversation,
    Conversations, Dialogue, EarlierMessage, StatementOutcome,
};
use crate::store::error::StoreError;
use crate::store::future::StoreFuture;
use crate::store::handoff::{ActiveHandoff, HandoffChange, HandoffRow, Handoffs};
use crate::store::journal::{
    AcceptOutcome, Claim, ClaimedBacklog, Completion, CrashPolicy, FailOutcome, Journal,
    QueuedMessage, ReplyDecision, ReplyPath, TurnStatus,
};
use crate::store::link_rows::LinkColumns;
use crate::store::media::{
    FileHash, LinkSigningKey, LinkTokenHash, MediaLinks, NewLink, ResolvedLink,
};
use crate::store::new_inbound::NewInbound;
use crate::store::outbound_message::{
    NewOutbound, OutboundMessage, OutboundRow, ScheduledMessage, SendOutcome,
};
use crate::store::outbox::{ClaimedOutbox, Outbox, OutboxStats, StatusEffect, StatusEvent};
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::{self, consent, events, handoff, media, status_events};
use crate::store::states;
use crate::store::submission::{
    IdempotencyKey, KeyedMessage, SendEligibility, Submission, SubmitOutcome,
};
use crate::store::users::{AddressConsent, UserChange, UserDetails, Users};

impl Journal for PostgresStore {
    fn accept(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome> {
        let (me, records) = (self.owner, self.records());
        Box::pin(async move {
            let shared = inbound.clone();
            let fast_path = self.run(move |db| {
                let inbound = shared.clone();
                Box::pin(async move { accept_usual::accept_usual(db, me, &inbound).await })
            });
            if let Some(outcome) = fast_path.await? {
                return Ok(outcome);
            }
            let full_accept = self.run_claiming(move |db| {
                let inbound = inbound.clone();
                Box::pin(async move { accept::accept(db, me, &inbound, records).await })
            });
            full_accept.await
        })
    }

    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus> {
        let me = self.owner;
        Box::pin(async move {
            // Most polls find that an older message is still open, which needs no lock. A message that seems free is
            // checked again under the lock.
            let unlocked = self.run(move |db| {
                Box::pin(async move { Ok(reading::read_state(db, me, id).await?.turn(me)) })
            });
            if let Some(turn) = unlocked.await? {
                return Ok(turn);
            }
            self.run_claiming(move |db| Box::pin(claims::try_claim(db, me, id, now)))
                .await
        })
    }

    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let me = self.owner;
        self.run(move |db| Box::pin(journal::queued_behind(db, me, claim.id, limit)))
    }

    fn decide(&self, id: i64, path: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        // The fallback text of a failed message is its last response.
        let ends_grace = self.records() && matches!(path, ReplyPath::Twiml(_));
        self.run(move |db| {
            let path = path.clone();
            Box::pin(async move {
                let decision = journal::decide(db, me, id, path, now).await?;
                let mut db = RecordingDatabase::new(db, ends_grace);
                events::end_failure_grace(&mut db, id, now).await?;
                Ok(decision)
            })
        })
    }

    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        let params = CompletionParams::of(me, claim, &completion, now);
        let records = self.records() && completion.handoff.is_some();
        // Without an event, one statement suffices.
        let begin = records.then(|| BEGIN.into());
        let reply = Arc::new((twiml, completion));
        self.call(begin, move |db| {
            let (params, reply) = (params.clone(), reply.clone());
            Box::pin(async move {
                let (twiml, completion) = (reply.0.as_deref(), &reply.1);
                complete_inline::complete_inline(db, me, claim, twiml, completion, &params, records)
                    .await
            })
        })
    }

    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool> {
        let params = CompletionParams::of(self.owner, claim, &completion, now);
        // Only a TwiML response can redirect, so the handoff begins without this message.
        let reason = completion
            .handoff
            .as_ref()
            .is_some_and(HandoffChange::is_redirect)
            .then_some(states::NOT_REDIRECTED)
            .or(completion.reason);
        let records = self.records() && completion.handoff.is_some();
        let begin = records.then(|| BEGIN.into());
        let reply = Arc::new((Columns::of(&replies), completion));
        self.call(begin, move |db| {
            let (reply, params) = (reply.clone(), params.clone());
            Box::pin(async move {
                let (replies, completion) = (&reply.0, &reply.1);
                complete_via_rest::complete_via_rest(
                    db, replies, reason, completion, &params, records,
                )
                .await
            })
        })
    }

    fn record_failure(
        &self,
        claim: Claim,
        reason: &'static str,
        last_attempt: bool,
        now: Timestamp,
    ) -> StoreFuture<'_, FailOutcome> {
        let (me, records) = (self.owner, self.records());
        self.call(records.then(|| BEGIN.into()), move |db| {
            Box::pin(async move {
                let failed = journal::record_failure(db, me, claim, reason, last_attempt).await?;
                if matches!(failed, FailOutcome::Retryable | FailOutcome::Dead) {
                    let mut db = RecordingDatabase::new(db, records);
                    events::record_inbound_failure(&mut db, claim.id, now).await?;
                }
                Ok(failed)
            })
        })
    }

    fn claim_backlog(
        &self,
        limit: usize,
        policy: CrashPolicy,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedBacklog> {
        let (me, records) = (self.owner, self.records());
        self.run_claiming(move |db| {
            Box::pin(backlog::claim_backlog(db, me, limit, policy, now, records))
        })
    }

    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64> {
        let me = self.owner;
        self.run(move |db| {
            Box::pin(claims::release_stale_claims(
                db,
                me,
                running.clone(),
                before,
            ))
        })
    }

    fn backfill(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()> {
        let (me, records) = (self.owner, self.records());
        let unflushed = Arc::new((inbound, twiml));
        self.run_claiming(move |db| {
            let unflushed = unflushed.clone();
            Box::pin(async move {
                backfill::backfill(db, me, &unflushed.0, unflushed.1.as_deref(), records).await
            })
        })
    }
}

impl Conversations for PostgresStore {
    fn conversation(
        &self,
        sender: &Address,
        user: &Address,
    ) -> StoreFuture<'_, Option<Conversation>> {
        let pair = Arc::new((sender.clone(), user.clone()));
        self.run(move |db| {
            let pair = pair.clone();
            Box::pin(async move { shared::conversations::conversation(db, &pair.0, &pair.1).await })
        })
    }

    fn consent(&self, scopes: Vec<ConsentScope>, user: &Address) -> StoreFuture<'_, ConsentState> {
        let asked = Arc::new((scopes, user.clone()));
        self.run(move |db| {
            let asked = asked.clone();
            Box::pin(async move { consent::consent(db, &asked.0, &asked.1).await })
        })
    }

    fn record_consent(&self, record: ConsentRecord) -> StoreFuture<'_, ()> {
        let (record, records) = (Arc::new(record), self.records());
        self.write(move |db| {
            let record = record.clone();
            Box::pin(async move {
                consent::record_consent(&mut RecordingDatabase::new(db, records), &record).await
            })
        })
    }

    fn state_consent(&self, statement: ConsentStatement) -> StoreFuture<'_, StatementOutcome> {
        let (statement, records) = (Arc::new(statement), self.records());
        self.write(move |db| {
            let statement = statement.clone();
            Box::pin(async move {
                consent::state_consent(&mut RecordingDatabase::new(db, records), &statement).await
            })
        })
    }

    fn consent_ledger(&self, after: i64, limit: u32) -> StoreFuture<'_, Vec<ConsentEntry>> {
        self.run(move |db| Box::pin(consent::consent_ledger(db, after, limit)))
    }

    fn dialogue(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<Dialogue>> {
        self.run(move |db| Box::pin(shared::conversations::dialogue(db, conversation, now)))
    }

    fn open_question(
        &self,
        conversation: i64,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<OpenQuestion>> {
        self.run(move |db| Box::pin(shared::conversations::open_question(db, conversation, now)))
    }

    fn set_question_numbered(
        &self,
        sender: &Address,
        user: &Address,
        id: QuestionId,
        is_numbered: bool,
    ) -> StoreFuture<'_, ()> {
        let named = Arc::new((sender.clone(), user.clone(), id));
        self.run(move |db| {
            let named = named.clone();
            Box::pin(async move {
                let (sender, user, id) = &*named;
                let addresses = (sender, user);
                shared::conversations::set_question_numbered(db, addresses, id, is_numbered).await
            })
        })
    }

    fn earlier(&self, message: i64, limit: u32) -> StoreFuture<'_, Vec<EarlierMessage>> {
        self.run(move |db| Box::pin(conversations::earlier(db, message, limit)))
    }
}

impl Handoffs for PostgresStore {
    fn handoff(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<ActiveHandoff>> {
        self.run(move |db| Box::pin(handoff::handoff(db, conversation, now)))
    }

    fn begin_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        begun: ActiveHandoff,
        now: Timestamp,
    ) -> StoreFuture<'_, u64> {
        let call = Arc::new((sender.cloned(), user.clone(), begun));
        let records = self.records();
        self.call(records.then(|| BEGIN.into()), move |db| {
            let call = call.clone();
            Box::pin(async move {
                let (sender, user, begun) = &*call;
                let mut db = RecordingDatabase::new(db, records);
                handoff::begin_handoff(&mut db, sender.as_ref(), user, begun, now).await
            })
        })
    }

    fn handoffs_of(&self, user: &Address, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>> {
        let user = Arc::new(user.clone());
        self.run(move |db| {
            let user = user.clone();
            Box::pin(async move { handoff::handoffs_of(db, &user, now).await })
        })
    }

    fn end_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        now: Timestamp,
    ) -> StoreFuture<'_, u64> {
        let (pair, records) = (Arc::new((sender.cloned(), user.clone())), self.records());
        self.call(records.then(|| BEGIN.into()), move |db| {
            let pair = pair.clone();
            Box::pin(async move {
                let mut db = RecordingDatabase::new(db, records);
                handoff::end_handoff(&mut db, pair.0.as_ref(), &pair.1, now).await
            })
        })
    }

    fn active_handoffs(&self, limit: u32, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>> {
        self.run(move |db| Box::pin(handoff::active_handoffs(db, limit, now)))
    }
}

impl Outbox for PostgresStore {
    fn claim_with_wait(
        &self,
        limit: usize,
        wait: Duration,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedOutbox> {
        let (me, records) = (self.owner, self.records());
        self.run_claiming(move |db| {
            Box::pin(async move {
                let claimed = outbox_claim::claim(db, me, limit, wait, now).await?;
                let suppressed = claimed.suppressed.iter().map(|message| message.id);
                let mut db = RecordingDatabase::new(db, records);
                events::record_suppressed(&mut db, suppressed, now).await?;
                Ok(claimed)
            })
        })
    }

    fn record_outcome(&self, id: i64, outcome: SendOutcome, now: Timestamp) -> StoreFuture<'_, ()> {
        let (me, outcome, records) = (self.owner, Arc::new(outcome), self.records());
        // Only this outcome stores a SID, so only it can race with a status callback of the same message.
        let begin = match &*outcome {
            SendOutcome::Sent { sid, .. } => outbox::begin_with_sid_lock(*sid),
            _ => BEGIN.to_owned(),
        };
        self.call(Some(begin.into()), move |db| {
            let outcome = outcome.clone();
            Box::pin(async move {
                let mut recording = RecordingDatabase::new(&mut *db, records);
                let watched = events::watch_outbound(&mut recording, id).await?;
                outbox::record_outcome(db, me, id, &outcome, now, records).await?;
                events::record_outbound_change(db, watched, now).await
            })
        })
    }

    fn claim_lookups(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        self.run(move |db| Box::pin(outbox::claim_lookups(db, limit, now)))
    }

    fn scheduled_to_cancel(
        &self,
        after: i64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<ScheduledMessage>> {
        self.run(move |db| Box::pin(shared::outbox::scheduled_to_cancel(db, after, limit)))
    }

    fn unmatched_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> StoreFuture<'_, Vec<MessageSid>> {
        let sids: Arc<[MessageSid]> = sids.into();
        self.run(move |db| {
            let sids = sids.clone();
            Box::pin(async move { outbox::unmatched_sids(db, account, &sids).await })
        })
    }

    fn enqueue(&self, replies: Vec<NewOutbound>, now: Timestamp) -> StoreFuture<'_, Vec<i64>> {
        let replies = Arc::new(Columns::of(&replies));
        self.run(move |db| {
            let replies = replies.clone();
            Box::pin(async move { outbox::insert(db, &replies, now).await })
        })
    }

    fn enqueue_confirmation(
        &self,
        messages: Vec<NewOutbound>,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<i64>> {
        let messages = Arc::new(Columns::of(&messages));
        self.write(move |db| {
            let messages = messages.clone();
            Box::pin(async move { outbox::insert_confirmation(db, &messages, now).await })
        })
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> StoreFuture<'_, SubmitOutcome> {
        let submission = Arc::new(submission);
        self.write(move |db| {
            let submission = submission.clone();
            Box::pin(async move { submission::submit(db, &submission, now).await })
        })
    }

    fn eligibility(
        &self,
        sender: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> StoreFuture<'_, SendEligibility> {
        let pair = Arc::new((sender.clone(), user.clone()));
        self.run(move |db| {
            let pair = pair.clone();
            Box::pin(async move {
                shared::submission::eligibility(db, &pair.0, service, &pair.1, at).await
            })
        })
    }

    fn account_of_sender(&self, scope: &ConsentScope) -> StoreFuture<'_, Option<AccountSid>> {
        let scope = Arc::new(scope.clone());
        self.run(move |db| {
            let scope = scope.clone();
            Box::pin(async move { consent::account_of_sender(db, &scope).await })
        })
    }

    fn find_by_key(&self, key: IdempotencyKey) -> StoreFuture<'_, Option<KeyedMessage>> {
        self.run(move |db| Box::pin(async move { shared::submission::find_by_key(db, &key).await }))
    }

    fn outbound(&self, id: i64) -> StoreFuture<'_, Option<OutboundRow>> {
        self.run(move |db| Box::pin(shared::outbox::find_outbound(db, id)))
    }

    fn apply_status(&self, event: StatusEvent) -> StoreFuture<'_, StatusEffect> {
        let begin = outbox::begin_with_sid_lock(event.sid);
        let (event, records) = (Arc::new(event), self.records());
        self.call(Some(begin.into()), move |db| {
            let event = event.clone();
            Box::pin(async move {
                status_events::apply_status(&mut RecordingDatabase::new(db, records), &event).await
            })
        })
    }

    fn begin_preparation(&self, id: i64) -> StoreFuture<'_, bool> {
        let me = self.owner;
        self.run(move |db| Box::pin(shared::outbox::begin_preparation(db, me, id)))
    }

    fn end_retry_delays(&self, account: AccountSid, now: Timestamp) -> StoreFuture<'_, ()> {
        self.run(move |db| Box::pin(shared::outbox::end_retry_delays(db, account, now)))
    }

    fn outbox_stats(&self) -> StoreFuture<'_, OutboxStats> {
        self.run(|db| Box::pin(shared::outbox::outbox_stats(db)))
    }
}

impl Users for PostgresStore {
    fn user(&self, user: &Address, account: Option<AccountSid>) -> StoreFuture<'_, UserDetails> {
        let user = Arc::new(user.clone());
        self.run_maintenance(move |db| {
            let user = user.clone();
            Box::pin(async move { shared::users::user(db, &user, account).await })
        })
    }

    fn accounts_of(&self, user: &Address) -> StoreFuture<'_, Vec<AccountSid>> {
        let user = Arc::new(user.clone());
        self.run_maintenance(move |db| {
            let user = user.clone();
            Box::pin(async move { shared::account_users::accounts_of(db, &user).await })
        })
    }

    fn known_accounts(&self) -> StoreFuture<'_, Vec<AccountSid>> {
        self.run_maintenance(|db| Box::pin(shared::account_users::known_accounts(db)))
    }

    fn service_of_sender(&self, sender: &Address) -> StoreFuture<'_, Option<MessagingServiceSid>> {
        let sender = Arc::new(sender.clone());
        self.run(move |db| {
            let sender = sender.clone();
            Box::pin(async move { shared::users::service_of_sender(db, &sender).await })
        })
    }

    fn consents(&self, user: &Address) -> StoreFuture<'_, Vec<AddressConsent>> {
        let user = Arc::new(user.clone());
        self.run(move |db| {
            let user = user.clone();
            Box::pin(async move { shared::users::consents(db, &user).await })
        })
    }

    fn merge_users(&self, change: UserChange, other: &Address) -> StoreFuture<'_, bool> {
        let change = Arc::new((change, other.clone()));
        self.write(move |db| {
            let change = change.clone();
            Box::pin(
                async move { shared::users::change_user(db, &change.0, Some(&change.1)).await },
            )
        })
    }

    fn split_user(&self, change: UserChange) -> StoreFuture<'_, bool> {
        let change = Arc::new(change);
        self.write(move |db| {
            let change = change.clone();
            Box::pin(async move { shared::users::change_user(db, &change, None).await })
        })
    }
}

impl MediaLinks for PostgresStore {
    fn link_signing_key(&self) -> Result<&LinkSigningKey, StoreError> {
        Ok(&self.opened()?.link_signing_key)
    }

    fn create_link(&self, link: NewLink) -> StoreFuture<'_, ()> {
        let columns = LinkColumns::of(&link);
        let link = Arc::new((link, columns));
        self.run_maintenance(move |db| {
            let link = link.clone();
            Box::pin(async move { media::insert_link(db, &link.0, &link.1).await })
        })
    }

    fn resolve_link(
        &self,
        token_hash: LinkTokenHash,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<ResolvedLink>> {
        self.run_media(move |db| Box::pin(media::resolve_link(db, token_hash, now)))
    }

    fn read_chunk(&self, file: FileHash, number: u32) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.run_media(move |db| Box::pin(media::read_chunk(db, file, number)))
    }

    fn expire_links(&self, now: Timestamp) -> StoreFuture<'_, bool> {
        self.run_maintenance(move |db| Box::pin(media::expire_links(db, now)))
    }
}
