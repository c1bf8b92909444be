//! [`Journal::claim_backlog`](crate::store::Journal::claim_backlog) in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::journal::{BLOCKED, HANDED_OVER, MessageState};
use crate::store::rows::{self, inbound};
use crate::store::{
    BacklogMessage, ClaimedBacklog, CrashPolicy, DeadMessage, RedactedParams, StoreError,
};

pub(super) fn take_up(
    db: &Connection,
    me: i64,
    limit: usize,
    policy: CrashPolicy,
    now: Timestamp,
) -> Result<ClaimedBacklog, StoreError> {
    // INDEXED BY: otherwise SQLite scans all messages ever stored, once per second. A message is free if it has no
    // owner, or another one, which is dead, because one server owns the file. `BLOCKED` keeps the order of each
    // conversation.
    let sql = format!(
        "SELECT {}, {BLOCKED}, {HANDED_OVER}, i.account, i.sid, i.auth_token, i.received_at, i.params \
         FROM inbound i INDEXED BY inbound_open WHERE i.state < 3 AND (i.owner IS NULL OR i.owner <> ?1) AND NOT {BLOCKED} ORDER BY i.id LIMIT ?2",
        MessageState::COLUMNS,
    );
    let found: Vec<_> = db
        .prepare_cached(&sql)?
        .query_map(
            params![me, i64::try_from(limit).unwrap_or(i64::MAX)],
            |row| {
                Ok((
                    MessageState::read(row)?,
                    row.get::<_, Vec<u8>>(9)?,
                    row.get::<_, Vec<u8>>(10)?,
                    row.get::<_, i64>(11)?,
                    row.get::<_, i64>(12)?,
                    row.get::<_, Option<String>>(13)?,
                ))
            },
        )?
        .collect::<Result<_, _>>()?;
    let mut taken_up = ClaimedBacklog::default();
    for (row, account, sid, slot, received_at, params) in found {
        // A message that a dead process had only queued has lost no attempt. One that was released has no owner.
        let crashed = row.state != inbound::RECEIVED && row.owner.is_some();
        let dead = match &params {
            // Without content no handler can run.
            None => Some(rows::EXPIRED),
            Some(_) if crashed && (!policy.retry || row.attempt >= policy.max_attempts) => {
                Some(rows::CRASHED)
            }
            Some(_) => None,
        };
        if let Some(reason) = dead {
            db.prepare_cached(
                "UPDATE inbound SET state = 6, owner = NULL, reason = ?2 WHERE id = ?1",
            )?
            .execute(params![row.id, reason])?;
            // Reported by this call only: in state 6 the statement above does not find the message again.
            taken_up.dead.push(DeadMessage {
                sid: rows::message_sid(&sid)?,
                reason: rows::dead_reason(reason),
            });
            continue;
        }
        taken_up.messages.push(BacklogMessage {
            // Deferred from the start: no request waits, so the reply takes the REST API.
            claim: row.claim(db, me, inbound::DEFERRED, now)?,
            account: rows::account_sid(&account)?,
            sid: rows::message_sid(&sid)?,
            auth_token: rows::auth_token(slot),
            params: RedactedParams(params.unwrap_or_default()),
            received_at: rows::time(received_at)?,
        });
    }
    Ok(taken_up)
}
