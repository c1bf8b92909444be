//! The methods of [`PostgresStore`] for operators and retention, each with its kind of transaction.

use std::sync::Arc;

use jiff::Timestamp;

use super::store::PostgresStore;
use super::{backfill, operator, retention};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::future::StoreFuture;
use crate::store::new_inbound::NewInbound;
use crate::store::operator::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, Operator, OutboundDetails, PurgeReport,
    Retention,
};
use crate::store::outbound_message::{OutboundMessage, OutboundState};
use crate::store::shared;

impl Operator for PostgresStore {
    fn messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<MessageRow>> {
        let filter = Arc::new(filter);
        self.run(move |db| {
            let filter = filter.clone();
            Box::pin(async move { shared::operator::messages(db, &filter).await })
        })
    }

    fn outbound_messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<OutboundDetails>> {
        let filter = Arc::new(filter);
        self.run(move |db| {
            let filter = filter.clone();
            Box::pin(async move { shared::operator::outbound_messages(db, &filter).await })
        })
    }

    fn backlog_stats(&self) -> StoreFuture<'_, BacklogStats> {
        self.run(|db| Box::pin(shared::operator::backlog_stats(db)))
    }

    fn retry(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, bool> {
        self.run(move |db| Box::pin(operator::retry(db, sid, now)))
    }

    fn release(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, u64> {
        self.run(move |db| Box::pin(shared::operator::release(db, sid, now)))
    }

    fn release_outbound(&self, id: Option<i64>, now: Timestamp) -> StoreFuture<'_, u64> {
        self.run(move |db| Box::pin(shared::operator::release_outbound(db, id, now)))
    }

    fn send_again(&self, id: i64, now: Timestamp) -> StoreFuture<'_, bool> {
        self.run(move |db| Box::pin(shared::operator::send_again(db, id, now)))
    }

    fn backfill_answered(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, ()> {
        let (me, records) = (self.owner, self.records());
        self.run_claiming(move |db| {
            let inbound = inbound.clone();
            Box::pin(async move { backfill::backfill_answered(db, me, &inbound, records).await })
        })
    }

    fn mark_answered(&self, account: AccountSid, sid: MessageSid) -> StoreFuture<'_, bool> {
        self.run(move |db| Box::pin(shared::operator::mark_answered(db, account, sid)))
    }

    fn list_open_outbound(
        &self,
        state: OutboundState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<OutboundMessage>> {
        self.run(move |db| Box::pin(operator::list_open_outbound(db, state, after, limit, now)))
    }

    fn purge_user(
        &self,
        user: &Address,
        account: Option<AccountSid>,
        forget_opt_out: bool,
    ) -> StoreFuture<'_, PurgeReport> {
        let user = Arc::new(user.clone());
        self.run_maintenance(move |db| {
            let user = user.clone();
            Box::pin(async move { operator::purge_user(db, &user, account, forget_opt_out).await })
        })
    }

    fn delete_everything(&self) -> StoreFuture<'_, ()> {
        self.run_maintenance(|db| Box::pin(shared::retention::delete_everything(db)))
    }

    fn expire(&self, retention: Retention) -> StoreFuture<'_, ExpiryReport> {
        self.run_maintenance(move |db| Box::pin(retention::expire(db, retention)))
    }
}
