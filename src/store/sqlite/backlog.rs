//! [`Journal::take_up`](crate::store::Journal::take_up) in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::journal::{BLOCKED, HANDED_OVER, State};
use crate::store::rows::{self, inbound};
use crate::store::{CrashPolicy, DeadMessage, StoreError, Taken, TakenParams, TakenUp};

pub(super) fn take_up(
    db: &Connection,
    me: i64,
    limit: usize,
    policy: CrashPolicy,
    now: Timestamp,
) -> Result<TakenUp, StoreError> {
    let sql = format!(
        "SELECT {}, {BLOCKED}, {HANDED_OVER}, i.account, i.sid, i.slot, i.received_at, i.params \
         FROM inbound i INDEXED BY inbound_open WHERE i.state < 3 AND (i.owner IS NULL OR i.owner <> ?1) AND NOT {BLOCKED} ORDER BY i.id LIMIT ?2",
        State::COLUMNS,
    );
    let found: Vec<_> = db
        .prepare_cached(&sql)?
        .query_map(
            params![me, i64::try_from(limit).unwrap_or(i64::MAX)],
            |row| {
                Ok((
                    State::read(row)?,
                    row.get::<_, Vec<u8>>(9)?,
                    row.get::<_, Vec<u8>>(10)?,
                    row.get::<_, i64>(11)?,
                    row.get::<_, i64>(12)?,
                    row.get::<_, Option<String>>(13)?,
                ))
            },
        )?
        .collect::<Result<_, _>>()?;
    let mut taken_up = TakenUp::default();
    for (row, account, sid, slot, received_at, params) in found {
        let crashed = row.state != inbound::RECEIVED && row.owner.is_some();
        let dead = match &params {
            None => Some(rows::EXPIRED),
            Some(_) if crashed && (!policy.retry || row.attempt >= policy.attempts) => {
                Some(rows::CRASHED)
            }
            Some(_) => None,
        };
        if let Some(reason) = dead {
            db.prepare_cached(
                "UPDATE inbound SET state = 6, owner = NULL, reason = ?2 WHERE id = ?1",
            )?
            .execute(params![row.id, reason])?;
            taken_up.dead.push(DeadMessage {
                sid: rows::message_sid(&sid)?,
                reason: rows::dead_reason(reason),
            });
            continue;
        }
        taken_up.taken.push(Taken {
            claim: row.claim(db, me, inbound::DEFERRED, now)?,
            account: rows::account_sid(&account)?,
            sid: rows::message_sid(&sid)?,
            slot: rows::slot(slot),
            params: TakenParams(params.unwrap_or_default()),
            received_at: rows::time(received_at)?,
        });
    }
    Ok(taken_up)
}
