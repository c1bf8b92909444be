//! [`Journal::claim_backlog`](crate::store::journal::Journal::claim_backlog) in PostgreSQL.

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::conditions::{is_blocked, is_owned};
use super::error::CallError;
use super::reading::number;
use super::text::unpack;
use crate::store::journal::{BacklogMessage, Claim, ClaimedBacklog, CrashPolicy, DeadMessage};
use crate::store::redacted_params::RedactedParams;
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::events;
use crate::store::{packing, states};

/// Open messages (below 3) that may be claimed: not owned by a live process, and first in their conversation.
// Locks the conversations. SKIP LOCKED, since a locked one belongs to a transaction that is claiming or accepting: the
// next poll finds what it leaves.
const LOCK_UNOWNED: &str = concat!(
    "SELECT i.id FROM inbound i JOIN conversation c ON c.id = i.conversation WHERE i.state < 3 AND NOT ",
    is_owned!("$1"),
    " AND NOT ",
    is_blocked!("$1"),
    " ORDER BY i.id LIMIT $2 FOR UPDATE OF c SKIP LOCKED"
);

/// Claims the messages that may still be claimed now that their conversations are locked.
// A statement of its own, so that its snapshot is newer than the locks.
//
// `dead`: a message without content cannot be handled. One whose owner died over it is dead if the policy allows no
// further attempt. A queued message (0, RECEIVED) has only waited, and one without an owner was released: neither has
// crashed.
//
// `claimed` moves a message to DEFERRED (2), since no request waits for its reply, or to DEAD (6).
//
// `counted` increases `claims`, so that an `ACCEPT_USUAL` that waits for one of the locks detects that its snapshot
// misses these claims.
const CLAIM_UNOWNED: &str = concat!(
    "WITH unowned AS (SELECT i.id, i.conversation, CASE WHEN i.params IS NULL THEN $6::text \
       WHEN i.state <> 0 AND i.owner IS NOT NULL AND NOT ($4 AND i.attempt < $5) THEN $7::text END AS dead \
     FROM inbound i WHERE i.id = ANY ($2) AND i.state < 3 AND NOT ",
    is_owned!("$1"),
    " AND NOT ",
    is_blocked!("$1"),
    " FOR UPDATE OF i), \
     counted AS (UPDATE conversation SET claims = claims + 1 WHERE id IN (SELECT conversation FROM unowned)), \
     claimed AS (UPDATE inbound i SET state = CASE WHEN unowned.dead IS NULL THEN 2 ELSE 6 END, \
       owner = CASE WHEN unowned.dead IS NULL THEN $1::bigint END, reason = coalesce(unowned.dead, i.reason), \
       attempt = i.attempt + CASE WHEN unowned.dead IS NULL THEN 1 ELSE 0 END, claimed_at = $3 \
       FROM unowned WHERE i.id = unowned.id \
       RETURNING i.id, i.conversation, i.attempt, i.reason IS NOT NULL AS failed_before, i.account, i.sid, i.auth_token, i.params, \
         i.received_at, unowned.dead, EXISTS (SELECT 1 FROM handoff h WHERE h.conversation = i.conversation AND h.until > $3) \
         AS handed_off, EXISTS (SELECT 1 FROM question q WHERE q.conversation = i.conversation AND q.expires_at > $3) AS has_question, \
         (SELECT min(user_id) FROM conversation_address a WHERE a.conversation = i.conversation) AS user_id) \
     SELECT id, conversation, attempt, failed_before, account, sid, auth_token, params, received_at, handed_off, dead, has_question, user_id \
     FROM claimed \
     ORDER BY id"
);

/// Claims up to `limit` unowned messages for the REST API. Those that cannot be handled become dead.
pub(super) async fn claim_backlog(
    db: &mut PgConnection,
    me: i64,
    limit: usize,
    policy: CrashPolicy,
    now: Timestamp,
    records_events: bool,
) -> Result<ClaimedBacklog, CallError> {
    let unowned: Vec<i64> = sqlx::query_scalar(LOCK_UNOWNED)
        .bind(me)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *db)
        .await?;
    if unowned.is_empty() {
        return Ok(ClaimedBacklog::default());
    }
    let found = sqlx::query(CLAIM_UNOWNED)
        .bind(me)
        .bind(unowned)
        .bind(now.as_microsecond())
        .bind(policy.retry)
        .bind(i64::from(policy.max_attempts))
        .bind(states::EXPIRED)
        .bind(states::CRASHED)
        .fetch_all(&mut *db)
        .await?;
    let mut claimed = ClaimedBacklog::default();
    for row in found {
        let sid = packing::message_sid(row.try_get(5)?)?;
        if let Some(reason) = row.try_get::<Option<&str>, _>(10)? {
            let reason = states::dead_reason(reason);
            let mut db = RecordingDatabase::new(&mut *db, records_events);
            events::record_inbound_failure(&mut db, row.try_get(0)?, now).await?;
            claimed.dead.push(DeadMessage { sid, reason });
            continue;
        }
        claimed.messages.push(BacklogMessage {
            claim: Claim {
                id: row.try_get(0)?,
                conversation: row.try_get(1)?,
                user: row.try_get(12)?,
                attempt: number(row.try_get(2)?),
                failed_before: row.try_get(3)?,
                handed_off: row.try_get(9)?,
                has_question: row.try_get(11)?,
            },
            account: packing::account_sid(row.try_get(4)?)?,
            sid,
            auth_token: packing::auth_token(row.try_get(6)?),
            params: RedactedParams(unpack(row.try_get(7)?)),
            received_at: packing::time(row.try_get(8)?)?,
        });
    }
    Ok(claimed)
}
