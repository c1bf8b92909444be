//! [`Journal::claim_backlog`](crate::store::journal::Journal::claim_backlog) in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::claims::claim;
use super::database::ready;
use super::reading::{BLOCKED, HANDOFF_END, HAS_QUESTION, STATE_COLUMNS, USER_ID, read_state};
use crate::store::error::StoreError;
use crate::store::journal::{BacklogMessage, ClaimedBacklog, CrashPolicy, DeadMessage};
use crate::store::packing;
use crate::store::redacted_params::RedactedParams;
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::events;
use crate::store::states::{self, inbound};

pub(super) fn claim_backlog(
    db: &Connection,
    me: i64,
    limit: usize,
    policy: CrashPolicy,
    now: Timestamp,
    records_events: bool,
) -> Result<ClaimedBacklog, StoreError> {
    // Open messages (below 3). INDEXED BY: otherwise SQLite scans all messages ever stored, once per second. A message
    // is free if it has no owner, or another one, which is dead, because one server owns the file. `BLOCKED` keeps the
    // order of each conversation.
    let sql = format!(
        "SELECT {STATE_COLUMNS}, {BLOCKED}, {HANDOFF_END}, {HAS_QUESTION}, {USER_ID}, i.account, i.sid, i.auth_token, i.received_at, i.params \
         FROM inbound i INDEXED BY inbound_open WHERE i.state < 3 AND (i.owner IS NULL OR i.owner <> ?1) AND NOT {BLOCKED} ORDER BY i.id LIMIT ?2"
    );
    let found: Vec<_> = db
        .prepare_cached(&sql)?
        .query_map(
            params![me, i64::try_from(limit).unwrap_or(i64::MAX)],
            |row| {
                Ok((
                    read_state(row, me)?,
                    row.get::<_, Vec<u8>>(11)?,
                    row.get::<_, Vec<u8>>(12)?,
                    row.get::<_, i64>(13)?,
                    row.get::<_, i64>(14)?,
                    row.get::<_, Option<String>>(15)?,
                ))
            },
        )?
        .collect::<Result<_, _>>()?;
    let mut claimed = ClaimedBacklog::default();
    for (message, account, sid, auth_token, received_at, params) in found {
        // A message that a dead process had only queued has lost no attempt. One that was released has no owner.
        let has_crashed = message.state != inbound::RECEIVED && message.owner.is_some();
        let dead = match &params {
            // Without content no handler can run.
            None => Some(states::EXPIRED),
            Some(_) if has_crashed && (!policy.retry || message.attempt >= policy.max_attempts) => {
                Some(states::CRASHED)
            }
            Some(_) => None,
        };
        if let Some(reason) = dead {
            // To DEAD (6): only an operator retries it.
            db.prepare_cached(
                "UPDATE inbound SET state = 6, owner = NULL, reason = ?2 WHERE id = ?1",
            )?
            .execute(params![message.id, reason])?;
            ready(events::record_inbound_failure(
                &mut RecordingDatabase::new(&mut &*db, records_events),
                message.id,
                now,
            ))?;
            // Reported by this call only: the statement above does not find a dead message again.
            claimed.dead.push(DeadMessage {
                sid: packing::message_sid(&sid)?,
                reason: states::dead_reason(reason),
            });
            continue;
        }
        claimed.messages.push(BacklogMessage {
            // Deferred from the start: no request waits, so the reply takes the REST API.
            claim: claim(db, me, &message, inbound::DEFERRED, now)?,
            account: packing::account_sid(&account)?,
            sid: packing::message_sid(&sid)?,
            auth_token: packing::auth_token(auth_token),
            params: RedactedParams(params.unwrap_or_default()),
            received_at: packing::time(received_at)?,
        });
    }
    Ok(claimed)
}
