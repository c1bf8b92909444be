//! The methods of [`SqliteStore`], each with the connection that it runs on.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::database::ready;
use super::store::SqliteStore;
use super::{
    accept, backfill, backlog, claims, complete_inline, complete_via_rest, conversations, journal,
    operator, outbox, outbox_claim, retention, submission,
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
use crate::store::handoff::{ActiveHandoff, HandoffRow, Handoffs};
use crate::store::journal::{
    AcceptOutcome, Claim, ClaimedBacklog, Completion, CrashPolicy, FailOutcome, Journal,
    QueuedMessage, ReplyDecision, ReplyPath, TurnStatus,
};
use crate::store::link_rows::LinkColumns;
use crate::store::media::{
    FileHash, LinkSigningKey, LinkTokenHash, MediaLinks, NewLink, ResolvedLink,
};
use crate::store::new_inbound::NewInbound;
use crate::store::operator::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, Operator, OutboundDetails, PurgeReport,
    Retention,
};
use crate::store::outbound_message::{
    NewOutbound, OutboundMessage, OutboundRow, OutboundState, ScheduledMessage, SendOutcome,
};
use crate::store::outbox::{ClaimedOutbox, Outbox, OutboxStats, StatusEffect, StatusEvent};
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::{self, consent, events, handoff, media, status_events};
use crate::store::submission::{
    IdempotencyKey, KeyedMessage, SendEligibility, Submission, SubmitOutcome,
};
use crate::store::users::{AddressConsent, UserChange, UserDetails, Users};

impl Journal for SqliteStore {
    fn accept(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| accept::accept(db, me, &inbound, records))
    }

    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus> {
        let me = self.owner;
        self.write(move |db| claims::try_claim(db, me, id, now))
    }

    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let me = self.owner;
        self.read(move |db| journal::queued_behind(db, me, claim.id, limit))
    }

    fn decide(&self, id: i64, path: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision> {
        let (me, records) = (self.owner, self.records());
        self.write(move |mut db| {
            let decision = journal::decide(db, me, id, &path, now)?;
            // The fallback text of a failed message is its last response.
            if matches!(path, ReplyPath::Twiml(_)) {
                let mut db = RecordingDatabase::new(&mut db, records);
                ready(events::end_failure_grace(&mut db, id, now))?;
            }
            Ok(decision)
        })
    }

    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| {
            let twiml = twiml.as_deref();
            complete_inline::complete_inline(db, me, claim, twiml, &completion, now, records)
        })
    }

    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| {
            complete_via_rest::complete_via_rest(db, me, claim, &replies, &completion, now, records)
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
        self.write(move |mut db| {
            let outcome = journal::record_failure(db, me, claim, reason, last_attempt)?;
            if matches!(outcome, FailOutcome::Retryable | FailOutcome::Dead) {
                let mut db = RecordingDatabase::new(&mut db, records);
                ready(events::record_inbound_failure(&mut db, claim.id, now))?;
            }
            Ok(outcome)
        })
    }

    fn claim_backlog(
        &self,
        limit: usize,
        policy: CrashPolicy,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedBacklog> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| backlog::claim_backlog(db, me, limit, policy, now, records))
    }

    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64> {
        let me = self.owner;
        self.write(move |db| claims::release_stale_claims(db, me, &running, before))
    }

    fn backfill(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| backfill::backfill(db, me, &inbound, twiml.as_deref(), records))
    }
}

impl Conversations for SqliteStore {
    fn conversation(
        &self,
        sender: &Address,
        user: &Address,
    ) -> StoreFuture<'_, Option<Conversation>> {
        let (sender, user) = (sender.clone(), user.clone());
        self.read(move |mut db| ready(shared::conversations::conversation(&mut db, &sender, &user)))
    }

    fn consent(&self, scopes: Vec<ConsentScope>, user: &Address) -> StoreFuture<'_, ConsentState> {
        let user = user.clone();
        self.read(move |mut db| ready(consent::consent(&mut db, &scopes, &user)))
    }

    fn record_consent(&self, record: ConsentRecord) -> StoreFuture<'_, ()> {
        let records = self.records();
        self.write(move |mut db| {
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(consent::record_consent(&mut db, &record))
        })
    }

    fn state_consent(&self, statement: ConsentStatement) -> StoreFuture<'_, StatementOutcome> {
        let records = self.records();
        self.write(move |mut db| {
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(consent::state_consent(&mut db, &statement))
        })
    }

    fn consent_ledger(&self, after: i64, limit: u32) -> StoreFuture<'_, Vec<ConsentEntry>> {
        self.read(move |mut db| ready(consent::consent_ledger(&mut db, after, limit)))
    }

    fn dialogue(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<Dialogue>> {
        self.read(move |mut db| ready(shared::conversations::dialogue(&mut db, conversation, now)))
    }

    fn open_question(
        &self,
        conversation: i64,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<OpenQuestion>> {
        self.read(move |mut db| {
            ready(shared::conversations::open_question(
                &mut db,
                conversation,
                now,
            ))
        })
    }

    fn set_question_numbered(
        &self,
        sender: &Address,
        user: &Address,
        id: QuestionId,
        is_numbered: bool,
    ) -> StoreFuture<'_, ()> {
        let (sender, user) = (sender.clone(), user.clone());
        self.write(move |mut db| {
            let addresses = (&sender, &user);
            ready(shared::conversations::set_question_numbered(
                &mut db,
                addresses,
                &id,
                is_numbered,
            ))
        })
    }

    fn earlier(&self, message: i64, limit: u32) -> StoreFuture<'_, Vec<EarlierMessage>> {
        self.read(move |db| conversations::earlier(db, message, limit))
    }
}

impl Handoffs for SqliteStore {
    fn handoff(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<ActiveHandoff>> {
        self.read(move |mut db| ready(handoff::handoff(&mut db, conversation, now)))
    }

    fn begin_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        begun: ActiveHandoff,
        now: Timestamp,
    ) -> StoreFuture<'_, u64> {
        let (sender, user) = (sender.cloned(), user.clone());
        let records = self.records();
        self.write(move |mut db| {
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(handoff::begin_handoff(
                &mut db,
                sender.as_ref(),
                &user,
                &begun,
                now,
            ))
        })
    }

    fn handoffs_of(&self, user: &Address, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>> {
        let user = user.clone();
        self.read(move |mut db| ready(handoff::handoffs_of(&mut db, &user, now)))
    }

    fn end_handoff(
        &self,
        sender: Option<&Address>,
        user: &Address,
        now: Timestamp,
    ) -> StoreFuture<'_, u64> {
        let (sender, user) = (sender.cloned(), user.clone());
        let records = self.records();
        self.write(move |mut db| {
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(handoff::end_handoff(&mut db, sender.as_ref(), &user, now))
        })
    }

    fn active_handoffs(&self, limit: u32, now: Timestamp) -> StoreFuture<'_, Vec<HandoffRow>> {
        self.read(move |mut db| ready(handoff::active_handoffs(&mut db, limit, now)))
    }
}

impl Outbox for SqliteStore {
    fn claim_with_wait(
        &self,
        limit: usize,
        wait: Duration,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedOutbox> {
        let (me, records) = (self.owner, self.records());
        self.write(move |mut db| {
            let claimed = outbox_claim::claim(db, me, limit, wait, now)?;
            let suppressed = claimed.suppressed.iter().map(|message| message.id);
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(events::record_suppressed(&mut db, suppressed, now))?;
            Ok(claimed)
        })
    }

    fn record_outcome(&self, id: i64, outcome: SendOutcome, now: Timestamp) -> StoreFuture<'_, ()> {
        let (me, records) = (self.owner, self.records());
        self.write(move |mut db| {
            let mut recording = RecordingDatabase::new(&mut db, records);
            let watched = ready(events::watch_outbound(&mut recording, id))?;
            outbox::record_outcome(db, me, id, &outcome, now, records)?;
            ready(events::record_outbound_change(&mut db, watched, now))
        })
    }

    fn claim_lookups(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.write(move |db| outbox::claim_lookups(db, me, limit, now))
    }

    fn scheduled_to_cancel(
        &self,
        after: i64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<ScheduledMessage>> {
        self.read(move |mut db| ready(shared::outbox::scheduled_to_cancel(&mut db, after, limit)))
    }

    fn unmatched_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> StoreFuture<'_, Vec<MessageSid>> {
        self.read(move |db| outbox::unmatched_sids(db, account, &sids))
    }

    fn enqueue(&self, replies: Vec<NewOutbound>, now: Timestamp) -> StoreFuture<'_, Vec<i64>> {
        self.write(move |db| outbox::insert(db, None, &replies, now))
    }

    fn enqueue_confirmation(
        &self,
        messages: Vec<NewOutbound>,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<i64>> {
        self.write(move |db| outbox::insert_confirmation(db, &messages, now))
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> StoreFuture<'_, SubmitOutcome> {
        self.write(move |db| submission::submit(db, &submission, now))
    }

    fn eligibility(
        &self,
        sender: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> StoreFuture<'_, SendEligibility> {
        let (sender, user) = (sender.clone(), user.clone());
        self.read(move |mut db| {
            ready(shared::submission::eligibility(
                &mut db, &sender, service, &user, at,
            ))
        })
    }

    fn account_of_sender(&self, scope: &ConsentScope) -> StoreFuture<'_, Option<AccountSid>> {
        let scope = scope.clone();
        self.read(move |mut db| ready(consent::account_of_sender(&mut db, &scope)))
    }

    fn find_by_key(&self, key: IdempotencyKey) -> StoreFuture<'_, Option<KeyedMessage>> {
        self.read(move |mut db| ready(shared::submission::find_by_key(&mut db, &key)))
    }

    fn outbound(&self, id: i64) -> StoreFuture<'_, Option<OutboundRow>> {
        self.read(move |mut db| ready(shared::outbox::find_outbound(&mut db, id)))
    }

    fn apply_status(&self, event: StatusEvent) -> StoreFuture<'_, StatusEffect> {
        let records = self.records();
        self.write(move |mut db| {
            let mut db = RecordingDatabase::new(&mut db, records);
            ready(status_events::apply_status(&mut db, &event))
        })
    }

    fn begin_preparation(&self, id: i64) -> StoreFuture<'_, bool> {
        let me = self.owner;
        self.write(move |mut db| ready(shared::outbox::begin_preparation(&mut db, me, id)))
    }

    fn end_retry_delays(&self, account: AccountSid, now: Timestamp) -> StoreFuture<'_, ()> {
        self.write(move |mut db| ready(shared::outbox::end_retry_delays(&mut db, account, now)))
    }

    fn outbox_stats(&self) -> StoreFuture<'_, OutboxStats> {
        self.read(|mut db| ready(shared::outbox::outbox_stats(&mut db)))
    }
}

impl Users for SqliteStore {
    fn user(&self, user: &Address, account: Option<AccountSid>) -> StoreFuture<'_, UserDetails> {
        let user = user.clone();
        self.read(move |mut db| ready(shared::users::user(&mut db, &user, account)))
    }

    fn accounts_of(&self, user: &Address) -> StoreFuture<'_, Vec<AccountSid>> {
        let user = user.clone();
        self.read(move |mut db| ready(shared::account_users::accounts_of(&mut db, &user)))
    }

    fn known_accounts(&self) -> StoreFuture<'_, Vec<AccountSid>> {
        self.read(|mut db| ready(shared::account_users::known_accounts(&mut db)))
    }

    fn service_of_sender(&self, sender: &Address) -> StoreFuture<'_, Option<MessagingServiceSid>> {
        let sender = sender.clone();
        self.read(move |mut db| ready(shared::users::service_of_sender(&mut db, &sender)))
    }

    fn consents(&self, user: &Address) -> StoreFuture<'_, Vec<AddressConsent>> {
        let user = user.clone();
        self.read(move |mut db| ready(shared::users::consents(&mut db, &user)))
    }

    fn merge_users(&self, change: UserChange, other: &Address) -> StoreFuture<'_, bool> {
        let other = other.clone();
        self.write(move |mut db| ready(shared::users::change_user(&mut db, &change, Some(&other))))
    }

    fn split_user(&self, change: UserChange) -> StoreFuture<'_, bool> {
        self.write(move |mut db| ready(shared::users::change_user(&mut db, &change, None)))
    }
}

impl MediaLinks for SqliteStore {
    fn link_signing_key(&self) -> Result<&LinkSigningKey, StoreError> {
        Ok(&self.opened()?.link_signing_key)
    }

    fn create_link(&self, link: NewLink) -> StoreFuture<'_, ()> {
        let columns = LinkColumns::of(&link);
        self.write(move |mut db| ready(media::insert_link(&mut db, &link, &columns)))
    }

    fn resolve_link(
        &self,
        token_hash: LinkTokenHash,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<ResolvedLink>> {
        self.read_media(move |mut db| ready(media::resolve_link(&mut db, token_hash, now)))
    }

    fn read_chunk(&self, file: FileHash, number: u32) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.read_media(move |mut db| ready(media::read_chunk(&mut db, file, number)))
    }

    fn expire_links(&self, now: Timestamp) -> StoreFuture<'_, bool> {
        self.write(move |mut db| ready(media::expire_links(&mut db, now)))
    }
}

impl Operator for SqliteStore {
    fn messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<MessageRow>> {
        self.read(move |mut db| ready(shared::operator::messages(&mut db, &filter)))
    }

    fn outbound_messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<OutboundDetails>> {
        self.read(move |mut db| ready(shared::operator::outbound_messages(&mut db, &filter)))
    }

    fn backlog_stats(&self) -> StoreFuture<'_, BacklogStats> {
        self.read(|mut db| ready(shared::operator::backlog_stats(&mut db)))
    }

    fn retry(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, bool> {
        self.write(move |db| operator::retry(db, sid, now))
    }

    fn release(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, u64> {
        self.write(move |mut db| ready(shared::operator::release(&mut db, sid, now)))
    }

    fn release_outbound(&self, id: Option<i64>, now: Timestamp) -> StoreFuture<'_, u64> {
        self.write(move |mut db| ready(shared::operator::release_outbound(&mut db, id, now)))
    }

    fn send_again(&self, id: i64, now: Timestamp) -> StoreFuture<'_, bool> {
        self.write(move |mut db| ready(shared::operator::send_again(&mut db, id, now)))
    }

    fn backfill_answered(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, ()> {
        let (me, records) = (self.owner, self.records());
        self.write(move |db| backfill::backfill_answered(db, me, &inbound, records))
    }

    fn mark_answered(&self, account: AccountSid, sid: MessageSid) -> StoreFuture<'_, bool> {
        self.write(move |mut db| ready(shared::operator::mark_answered(&mut db, account, sid)))
    }

    fn list_open_outbound(
        &self,
        state: OutboundState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<OutboundMessage>> {
        self.read(move |db| operator::list_open_outbound(db, state, after, limit, now))
    }

    fn purge_user(
        &self,
        user: &Address,
        account: Option<AccountSid>,
        forget_opt_out: bool,
    ) -> StoreFuture<'_, PurgeReport> {
        let user = user.clone();
        Box::pin(async move {
            let purged = self
                .write(move |db| operator::purge_user(db, &user, account, forget_opt_out))
                .await?;
            // The write-ahead log still contains the old pages until a checkpoint truncates it.
            self.opened()?.truncate_log().await?;
            Ok(purged)
        })
    }

    fn delete_everything(&self) -> StoreFuture<'_, ()> {
        self.write(|mut db| ready(shared::retention::delete_everything(&mut db)))
    }

    fn expire(&self, retention: Retention) -> StoreFuture<'_, ExpiryReport> {
        self.write(move |db| retention::expire(db, &retention))
    }
}
