//! [`Operator`] in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::error::CallError;
use super::media::delete_links;
use super::text::{pack, unpack};
use super::{PostgresStore, accept, outbox, retention};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, NewInbound, Operator, OutboundDetails,
    OutboundMessage, OutboundRow, OutboundState, PurgeReport, RedactedParams, Retention,
    StoreFuture, expiry, packing, states,
};

impl Operator for PostgresStore {
    fn messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<MessageRow>> {
        let filter = Arc::new(filter);
        self.run(move |db| {
            let filter = filter.clone();
            Box::pin(async move { messages(db, &filter).await })
        })
    }

    fn outbound_messages(&self, filter: MessageFilter) -> StoreFuture<'_, Vec<OutboundDetails>> {
        let filter = Arc::new(filter);
        self.run(move |db| {
            let filter = filter.clone();
            Box::pin(async move { outbound_messages(db, &filter).await })
        })
    }

    fn backlog_stats(&self) -> StoreFuture<'_, BacklogStats> {
        self.run(|db| {
            Box::pin(async {
                // Open messages (below 3), and below those in DEAD (6). Each condition is that of a partial index.
                let found: Vec<(i64, i64, i64)> = sqlx::query_as(
                    "SELECT state, count(*), min(received_at) FROM inbound WHERE state < 3 GROUP BY state",
                )
                .fetch_all(&mut *db)
                .await?;
                let mut open = BacklogStats::default();
                for (state, number, oldest) in found {
                    open.add(state, number, packing::time(oldest)?);
                }
                let found: Vec<(Option<String>, i64)> = sqlx::query_as(
                    "SELECT reason, count(*) FROM inbound WHERE state = 6 GROUP BY reason",
                )
                .fetch_all(db)
                .await?;
                for (reason, number) in found {
                    open.add_dead(reason.as_deref(), number);
                }
                Ok(open)
            })
        })
    }

    fn retry(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, bool> {
        self.run(move |db| {
            Box::pin(async move {
                // From FAILED or DEAD (5, 6) to DEFERRED (2), without an owner, so that the backlog handles it. Its
                // conversation may have been merged into another since, or deleted by retention: `retried` follows a
                // merge, `restored` restores a deleted one. `unordered`, so that replies to newer messages do not wait
                // for a reply that is this late.
                let changed: i64 = sqlx::query_scalar(
                    "WITH retried AS (UPDATE inbound i SET state = 2, owner = NULL, claimed_at = $2, unordered = true, \
                       conversation = coalesce((SELECT merged_into FROM conversation c WHERE c.id = i.conversation), i.conversation) \
                     WHERE i.sid = $1 AND i.state IN (5, 6) AND i.params IS NOT NULL RETURNING i.conversation, i.received_at), \
                     restored AS (INSERT INTO conversation (id, last_inbound) SELECT conversation, received_at FROM retried \
                     ON CONFLICT (id) DO NOTHING) SELECT count(*) FROM retried",
                )
                .bind(packing::sid_bytes(sid.as_str()))
                .bind(now.as_microsecond())
                .fetch_one(db)
                .await?;
                Ok(changed > 0)
            })
        })
    }

    fn release(&self, sid: MessageSid, now: Timestamp) -> StoreFuture<'_, u64> {
        self.run(move |db| {
            Box::pin(async move {
                // From HELD or FAILED (3, 5) to PENDING (0). `attempt = 0`: a released message gets a call whatever its
                // age. Without `params` there is nothing to send.
                let released = sqlx::query(
                    "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL, \
                     unordered = true WHERE inbound IN (SELECT id FROM inbound WHERE sid = $1) AND state IN (3, 5) AND params IS NOT NULL",
                )
                .bind(packing::sid_bytes(sid.as_str()))
                .bind(now.as_microsecond())
                .execute(db)
                .await?;
                Ok(released.rows_affected())
            })
        })
    }

    fn release_outbound(&self, id: Option<i64>, now: Timestamp) -> StoreFuture<'_, u64> {
        self.run(move |db| {
            Box::pin(async move {
                // Without an id only messages in HELD (3): one in FAILED (5) is released by its id.
                let released = sqlx::query(
                    "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL \
                     WHERE inbound IS NULL AND params IS NOT NULL \
                     AND (($1::bigint IS NULL AND state = 3) OR (id = $1 AND state IN (3, 5)))",
                )
                .bind(id)
                .bind(now.as_microsecond())
                .execute(db)
                .await?;
                Ok(released.rows_affected())
            })
        })
    }

    fn backfill_answered(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.run_claiming(move |db| {
            let inbound = inbound.clone();
            Box::pin(async move { accept::backfill_answered(db, me, &inbound).await })
        })
    }

    fn mark_answered(&self, account: AccountSid, sid: MessageSid) -> StoreFuture<'_, bool> {
        self.run(move |db| {
            Box::pin(async move {
                // Only open messages (0, 1, 2), to ANSWERED (3): the responses of others are saved or queued. The owner
                // is a process that ended with the lost journal.
                let changed = sqlx::query(
                    "UPDATE inbound SET state = 3, owner = NULL, reason = $3 \
                     WHERE sid = $1 AND account = $2 AND state IN (0, 1, 2)",
                )
                .bind(packing::sid_bytes(sid.as_str()))
                .bind(packing::sid_bytes(account.as_str()))
                .bind(states::ANSWERED_BEFORE)
                .execute(db)
                .await?
                .rows_affected();
                Ok(changed > 0)
            })
        })
    }

    fn list_open_outbound(
        &self,
        state: OutboundState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> StoreFuture<'_, Vec<OutboundMessage>> {
        self.run(move |db| Box::pin(outbox::list_open(db, state, after, limit, now)))
    }

    fn purge_user(&self, user: &Address, forget_opt_out: bool) -> StoreFuture<'_, PurgeReport> {
        let user = pack(user.as_str()).into_owned();
        self.run_maintenance(move |db| {
            let user = user.clone();
            Box::pin(async move { purge_user(db, user, forget_opt_out).await })
        })
    }

    fn delete_everything(&self) -> StoreFuture<'_, ()> {
        self.run_maintenance(|db| {
            Box::pin(async move {
                // In the order of `CONTENT_TABLES`: a table before those that it refers to.
                for table in expiry::CONTENT_TABLES {
                    let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
                    sqlx::query(statement).execute(&mut *db).await?;
                }
                retention::reset_marks(db).await
            })
        })
    }

    fn expire(&self, retention: Retention) -> StoreFuture<'_, ExpiryReport> {
        self.run_maintenance(move |db| Box::pin(retention::expire(db, retention)))
    }
}

/// Lists inbound messages with their replies, newest first.
async fn messages(
    db: &mut PgConnection,
    filter: &MessageFilter,
) -> Result<Vec<MessageRow>, CallError> {
    let conversations = match &filter.user {
        None => None,
        Some(user) => Some(conversations_of(db, &pack(user.as_str())).await?),
    };
    let wanted = filter.limit.max(1) as usize;
    let mut before = filter.before_id.unwrap_or(i64::MAX);
    let mut shown = Vec::new();
    // In pages, since the displayed state depends on the replies: the filter for it cannot be part of the query.
    loop {
        let page = sqlx::query(
            "SELECT i.id, i.sid, i.account, i.state, i.attempt, i.received_at, i.reason, i.params, i.response, \
             (SELECT min(a.address) FROM conversation_address a WHERE a.conversation = coalesce(c.merged_into, c.id)), h.until \
             FROM inbound i LEFT JOIN conversation c ON c.id = i.conversation \
             LEFT JOIN handoff h ON h.conversation = coalesce(c.merged_into, c.id) \
             WHERE i.id < $1 AND ($2::bytea IS NULL OR i.sid = $2) AND ($3::bigint[] IS NULL OR i.conversation = ANY ($3)) \
             ORDER BY i.id DESC LIMIT 500",
        )
        .bind(before)
        .bind(filter.sid.map(|sid| packing::sid_bytes(sid.as_str())))
        .bind(&conversations)
        .fetch_all(&mut *db)
        .await?;
        let ids = page
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<Vec<i64>, _>>()?;
        let Some(last) = ids.last() else {
            return Ok(shown);
        };
        before = *last;
        let mut replies = replies(db, &ids).await?;
        for row in page {
            let id: i64 = row.try_get(0)?;
            let replies = replies.remove(&id).unwrap_or_default();
            let states: Vec<_> = replies
                .iter()
                .map(|(reply, rank)| (reply.state, *rank == states::FAILURE_RANK))
                .collect();
            let state = states::shown_inbound_state(row.try_get(3)?, &states);
            let reason: Option<String> = row.try_get(6)?;
            if states::is_left_out(filter.state.as_deref(), state, reason.as_deref()) {
                continue;
            }
            let (user, until): (Option<String>, Option<i64>) = (row.try_get(9)?, row.try_get(10)?);
            shown.push(MessageRow {
                id,
                sid: packing::message_sid(row.try_get(1)?)?,
                account: packing::account_sid(row.try_get(2)?)?,
                state,
                attempt: u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or(u32::MAX),
                user: user.map(|user| unpack(user).into()),
                handed_off_until: until.map(packing::time).transpose()?,
                received_at: packing::time(row.try_get(5)?)?,
                reason,
                replies: replies.into_iter().map(|(reply, _)| reply).collect(),
                params: text(row.try_get(7)?),
                response: text(row.try_get(8)?),
            });
            if shown.len() == wanted {
                return Ok(shown);
            }
        }
    }
}

/// Lists outbound messages that are not replies, newest first.
async fn outbound_messages(
    db: &mut PgConnection,
    filter: &MessageFilter,
) -> Result<Vec<OutboundDetails>, CallError> {
    let state = filter.state.as_deref().map(states::outbound_number_by_name);
    // An unknown state matches nothing.
    if state == Some(None) {
        return Ok(Vec::new());
    }
    // Rank 6, FAILURE_RANK: Twilio accepted the message (4, SENT) and could not deliver it, which is shown as FAILED
    // (5).
    let found = sqlx::query(
        "SELECT inbound, id, state, sid, status, error_code, reason, params, rank, account, sender, address, attempt, created_at \
         FROM outbound WHERE inbound IS NULL AND id < $1 AND ($2::bytea IS NULL OR sid = $2) \
         AND ($3::bigint IS NULL OR $3 = CASE WHEN state = 4 AND rank = 6 THEN 5 ELSE state END) \
         AND ($4::text IS NULL OR address = $4 OR address IN (SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.address = $4)) \
         ORDER BY id DESC LIMIT $5",
    )
    .bind(filter.before_id.unwrap_or(i64::MAX))
    .bind(filter.sid.map(|sid| packing::sid_bytes(sid.as_str())))
    .bind(state.flatten())
    .bind(filter.user.as_ref().map(|user| pack(user.as_str())))
    .bind(i64::from(filter.limit.max(1)))
    .fetch_all(db)
    .await?;
    let listed = found.iter().map(|row| {
        let message = read_outbound(row)?;
        Ok(OutboundDetails {
            account: packing::account_sid(row.try_get(9)?)?,
            sender: unpack(row.try_get(10)?).into(),
            user: unpack(row.try_get(11)?).into(),
            state: states::shown_outbound_state(message.state, row.try_get(8)?),
            attempt: u32::try_from(row.try_get::<i64, _>(12)?).unwrap_or(u32::MAX),
            created_at: packing::time(row.try_get(13)?)?,
            message,
        })
    });
    listed.collect()
}

fn text(stored: Option<String>) -> Option<RedactedParams> {
    stored.map(|stored| RedactedParams(unpack(stored)))
}

/// Replies to these messages, in order, each with the rank of its status.
async fn replies(
    db: &mut PgConnection,
    inbound: &[i64],
) -> Result<HashMap<i64, Vec<(OutboundRow, i64)>>, CallError> {
    let found = sqlx::query(
        "SELECT inbound, id, state, sid, status, error_code, reason, params, rank FROM outbound WHERE inbound = ANY ($1) \
         ORDER BY inbound, ordinal",
    )
    .bind(inbound)
    .fetch_all(db)
    .await?;
    let mut replies: HashMap<i64, Vec<_>> = HashMap::new();
    for row in found {
        let of = replies.entry(row.try_get(0)?).or_default();
        of.push((read_outbound(&row)?, row.try_get(8)?));
    }
    Ok(replies)
}

/// Message of the outbox with this id.
pub(super) async fn find_outbound(
    db: &mut PgConnection,
    id: i64,
) -> Result<Option<OutboundRow>, CallError> {
    let found = sqlx::query(
        "SELECT inbound, id, state, sid, status, error_code, reason, params FROM outbound WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    found.as_ref().map(read_outbound).transpose()
}

fn read_outbound(row: &PgRow) -> Result<OutboundRow, CallError> {
    let sid: Option<Vec<u8>> = row.try_get(3)?;
    let status: Option<String> = row.try_get(4)?;
    let code: Option<i64> = row.try_get(5)?;
    Ok(OutboundRow {
        id: row.try_get(1)?,
        state: states::outbound_state(row.try_get(2)?)?,
        sid: sid.map(|sid| packing::message_sid(&sid)).transpose()?,
        status: status.map(unpack),
        error_code: code.and_then(|code| u32::try_from(code).ok()),
        reason: row.try_get(6)?,
        params: text(row.try_get(7)?),
    })
}

/// All conversations of the user with this address, including merged ones.
async fn conversations_of(db: &mut PgConnection, user: &str) -> Result<Vec<i64>, CallError> {
    let found = sqlx::query_scalar(
        "WITH own AS (SELECT DISTINCT conversation AS id FROM conversation_address WHERE address = $1) \
         SELECT id FROM own UNION SELECT id FROM conversation WHERE merged_into IN (SELECT id FROM own)",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    Ok(found)
}

/// Deletes the content of a user's messages, their addresses and consents. Opt-outs stay unless `forget_opt_out`.
async fn purge_user(
    db: &mut PgConnection,
    user: String,
    forget_opt_out: bool,
) -> Result<PurgeReport, CallError> {
    let conversations = conversations_of(db, &user).await?;
    // In the order of ids, like `conversations::find_or_create`, so that the two do not deadlock.
    sqlx::query("SELECT id FROM conversation WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&conversations)
        .execute(&mut *db)
        .await?;
    // A conversation may have been merged or created while this waited for the locks. Without another attempt, its
    // messages would remain.
    let now = conversations_of(db, &user).await?;
    if now.iter().any(|id| !conversations.contains(id)) {
        return Err(CallError::Conflict);
    }
    let mut addresses: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT address::text FROM conversation_address WHERE conversation = ANY ($1)",
    )
    .bind(&conversations)
    .fetch_all(&mut *db)
    .await?;
    // An address without a conversation can still have outbound messages and consents.
    if !addresses.contains(&user) {
        addresses.push(user);
    }
    delete_links(db, &conversations).await?;
    // All but ANSWERED and DONE (3, 4) become DEAD (6), since there is nothing left to handle. Without an owner, a
    // handler that runs has lost its claim. The rows stay for deduplication.
    let messages = sqlx::query(
        "UPDATE inbound SET params = NULL, response = NULL, reason = $2, owner = NULL, \
         state = CASE WHEN state IN (3, 4) THEN state ELSE 6 END WHERE conversation = ANY ($1) AND params IS NOT NULL",
    )
    .bind(&conversations)
    .bind(states::PURGED)
    .execute(&mut *db)
    .await?;
    let replies = sqlx::query(
        "DELETE FROM outbound WHERE inbound IN (SELECT id FROM inbound WHERE conversation = ANY ($1)) OR address = ANY ($2)",
    )
    .bind(&conversations)
    .bind(&addresses)
    .execute(&mut *db)
    .await?;
    delete_conversations(db, &conversations).await?;
    let (consent, ledger) = if forget_opt_out {
        (
            "DELETE FROM consent WHERE address = ANY ($1)",
            "DELETE FROM consent_ledger WHERE address = ANY ($1)",
        )
    } else {
        (
            "DELETE FROM consent WHERE address = ANY ($1) AND opted_out IS NULL",
            // Keeps only the opt-out lines of an opt-out that still counts. One that has ended does not
            // justify keeping an address.
            "DELETE FROM consent_ledger l WHERE l.address = ANY ($1) AND (l.action <> 'opt_out' OR NOT EXISTS (\
               SELECT 1 FROM consent c WHERE c.address = l.address AND c.scope = l.scope AND c.opted_out IS NOT NULL))",
        )
    };
    let consents = sqlx::query(consent)
        .bind(&addresses)
        .execute(&mut *db)
        .await?;
    sqlx::query(ledger)
        .bind(&addresses)
        .execute(&mut *db)
        .await?;
    // The remaining rows are opt-outs.
    sqlx::query("UPDATE consent SET opted_in = NULL WHERE address = ANY ($1)")
        .bind(&addresses)
        .execute(db)
        .await?;
    Ok(PurgeReport {
        messages: messages.rows_affected(),
        outbound: replies.rows_affected(),
        consents: consents.rows_affected(),
    })
}

/// Deletes conversations. The caller has locked them.
pub(super) async fn delete_conversations(
    db: &mut PgConnection,
    conversations: &[i64],
) -> Result<(), CallError> {
    for sql in [
        "DELETE FROM conversation_address WHERE conversation = ANY ($1)",
        "DELETE FROM dialogue WHERE conversation = ANY ($1)",
        "DELETE FROM handoff WHERE conversation = ANY ($1)",
        "DELETE FROM conversation WHERE id = ANY ($1)",
    ] {
        sqlx::query(sql)
            .bind(conversations)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
