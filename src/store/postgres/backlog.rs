//! [`Journal::take_up`](crate::store::Journal::take_up) in PostgreSQL.

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::error::Trouble;
use super::journal::number;
use super::text::unpack;
use crate::store::rows;
use crate::store::{Claim, CrashPolicy, DeadMessage, Taken, TakenParams, TakenUp};

/// Messages that may be claimed: unclaimed, and first in their conversation. Locks the conversations, except
/// those that another transaction has locked.
const FREE: &str = concat!(
    "SELECT i.id FROM inbound i JOIN conversation c ON c.id = i.conversation WHERE i.state < 3 AND NOT ",
    held!("$1"),
    " AND NOT ",
    blocked!("$1"),
    " ORDER BY i.id LIMIT $2 FOR UPDATE OF c SKIP LOCKED"
);

/// Takes what is still so, now that the conversations are locked.
const TAKE: &str = concat!(
    "WITH free AS (SELECT i.id, i.conversation, CASE WHEN i.params IS NULL THEN $6::text \
       WHEN i.state <> 0 AND i.owner IS NOT NULL AND NOT ($4 AND i.attempt < $5) THEN $7::text END AS dead \
     FROM inbound i WHERE i.id = ANY ($2) AND i.state < 3 AND NOT ",
    held!("$1"),
    " AND NOT ",
    blocked!("$1"),
    " FOR UPDATE OF i), \
     turned AS (UPDATE conversation SET turns = turns + 1 WHERE id IN (SELECT conversation FROM free)), \
     taken AS (UPDATE inbound i SET state = CASE WHEN free.dead IS NULL THEN 2 ELSE 6 END, \
       owner = CASE WHEN free.dead IS NULL THEN $1::bigint END, reason = coalesce(free.dead, i.reason), \
       attempt = i.attempt + CASE WHEN free.dead IS NULL THEN 1 ELSE 0 END, claimed_at = $3 \
       FROM free WHERE i.id = free.id \
       RETURNING i.id, i.conversation, i.attempt, i.reason IS NOT NULL AS failed_before, i.account, i.sid, i.slot, i.params, \
         i.received_at, free.dead, EXISTS (SELECT 1 FROM handover h WHERE h.conversation = i.conversation AND h.until > $3) \
         AS handed_over) \
     SELECT id, conversation, attempt, failed_before, account, sid, slot, params, received_at, handed_over, dead FROM taken \
     ORDER BY id"
);

pub(super) async fn take_up(
    db: &mut PgConnection,
    me: i64,
    limit: usize,
    policy: CrashPolicy,
    now: Timestamp,
) -> Result<TakenUp, Trouble> {
    let free: Vec<i64> = sqlx::query_scalar(FREE)
        .bind(me)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *db)
        .await?;
    if free.is_empty() {
        return Ok(TakenUp::default());
    }
    let found = sqlx::query(TAKE)
        .bind(me)
        .bind(free)
        .bind(now.as_microsecond())
        .bind(policy.retry)
        .bind(i64::from(policy.attempts))
        .bind(rows::EXPIRED)
        .bind(rows::CRASHED)
        .fetch_all(db)
        .await?;
    let mut taken_up = TakenUp::default();
    for row in found {
        let sid = rows::message_sid(row.try_get(5)?)?;
        if let Some(reason) = row.try_get::<Option<&str>, _>(10)? {
            let reason = rows::dead_reason(reason);
            taken_up.dead.push(DeadMessage { sid, reason });
            continue;
        }
        taken_up.taken.push(Taken {
            claim: Claim {
                id: row.try_get(0)?,
                conversation: row.try_get(1)?,
                attempt: number(row.try_get(2)?),
                failed_before: row.try_get(3)?,
                handed_over: row.try_get(9)?,
            },
            account: rows::account_sid(row.try_get(4)?)?,
            sid,
            slot: rows::slot(row.try_get(6)?),
            params: TakenParams(unpack(row.try_get(7)?)),
            received_at: rows::time(row.try_get(8)?)?,
        });
    }
    Ok(taken_up)
}
