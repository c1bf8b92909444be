//! Operations of commands in PostgreSQL.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::conversations::delete_conversations;
use super::error::CallError;
use super::media::delete_links;
use super::reading::{message, number, read_message, read_outbound, redacted};
use super::retention;
use super::text::{pack, unpack};
use crate::sid::{AccountSid, MessageSid};
use crate::store::operator::{
    BacklogStats, MessageFilter, MessageRow, OutboundDetails, PurgeReport,
};
use crate::store::outbound_message::{OutboundMessage, OutboundRow, OutboundState};
use crate::store::{expiry, packing, states};

/// Returns the numbers of messages without a reply.
pub(super) async fn backlog_stats(db: &mut PgConnection) -> Result<BacklogStats, CallError> {
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
    let found: Vec<(Option<String>, i64)> =
        sqlx::query_as("SELECT reason, count(*) FROM inbound WHERE state = 6 GROUP BY reason")
            .fetch_all(db)
            .await?;
    for (reason, number) in found {
        open.add_dead(reason.as_deref(), number);
    }
    Ok(open)
}

/// Puts a failed or dead message into the backlog.
pub(super) async fn retry(
    db: &mut PgConnection,
    sid: MessageSid,
    now: Timestamp,
) -> Result<bool, CallError> {
    // From FAILED or DEAD (5, 6) to DEFERRED (2), without an owner, so that the backlog handles it. Its conversation may
    // have been merged into another since, or deleted by retention: `retried` follows a merge, `restored` restores a
    // deleted one. `unordered`, so that replies to newer messages do not wait for a reply that is this late.
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
}

/// Releases the held and failed replies to a message, and returns their number.
pub(super) async fn release(
    db: &mut PgConnection,
    sid: MessageSid,
    now: Timestamp,
) -> Result<u64, CallError> {
    // From HELD or FAILED (3, 5) to PENDING (0). `attempt = 0`: a released message gets a call whatever its age. Without
    // `params` there is nothing to send.
    let released = sqlx::query(
        "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL, \
         unordered = true WHERE inbound IN (SELECT id FROM inbound WHERE sid = $1) AND state IN (3, 5) AND params IS NOT NULL",
    )
    .bind(packing::sid_bytes(sid.as_str()))
    .bind(now.as_microsecond())
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Releases outbound messages that are not replies, and returns their number.
pub(super) async fn release_outbound(
    db: &mut PgConnection,
    id: Option<i64>,
    now: Timestamp,
) -> Result<u64, CallError> {
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
}

/// Marks an open message as answered.
pub(super) async fn mark_answered(
    db: &mut PgConnection,
    account: AccountSid,
    sid: MessageSid,
) -> Result<bool, CallError> {
    // Only open messages (0, 1, 2), to ANSWERED (3): the responses of others are saved or queued. The owner is a process
    // that ended with the lost journal.
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
}

/// Messages in an open state, without claiming them.
// `state < 4` is the condition of the partial index `outbound_open`; it does not follow from a parameter.
const LIST_OPEN: &str = concat!(
    "SELECT ",
    message!(),
    " FROM outbound m WHERE m.state = $1 AND m.state < 4 AND m.id > $2 ORDER BY m.id LIMIT $3"
);

/// Lists messages in an open state, in the order of their ids.
pub(super) async fn list_open_outbound(
    db: &mut PgConnection,
    state: OutboundState,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, CallError> {
    let found = sqlx::query(LIST_OPEN)
        .bind(states::outbound_state_number(state))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    found.iter().map(|row| read_message(row, now)).collect()
}

/// Deletes the content of the store.
pub(super) async fn delete_everything(db: &mut PgConnection) -> Result<(), CallError> {
    // In the order of `CONTENT_TABLES`: a table before those that it refers to.
    for table in expiry::CONTENT_TABLES {
        let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        sqlx::query(statement).execute(&mut *db).await?;
    }
    retention::reset_marks(db).await
}

/// Lists inbound messages with their replies, newest first.
pub(super) async fn messages(
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
                attempt: number(row.try_get(4)?),
                user: user.map(|user| unpack(user).into()),
                handed_off_until: until.map(packing::time).transpose()?,
                received_at: packing::time(row.try_get(5)?)?,
                reason,
                replies: replies.into_iter().map(|(reply, _)| reply).collect(),
                params: redacted(row.try_get(7)?),
                response: redacted(row.try_get(8)?),
            });
            if shown.len() == wanted {
                return Ok(shown);
            }
        }
    }
}

/// Lists outbound messages that are not replies, newest first.
pub(super) async fn outbound_messages(
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
            attempt: number(row.try_get(12)?),
            created_at: packing::time(row.try_get(13)?)?,
            message,
        })
    });
    listed.collect()
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
pub(super) async fn purge_user(
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
