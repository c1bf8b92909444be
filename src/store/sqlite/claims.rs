//! Claims of inbound messages in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::reading::message_state;
use crate::store::decisions::MessageState;
use crate::store::error::StoreError;
use crate::store::journal::{Claim, TurnStatus};
use crate::store::states::inbound;

/// Claims a queued message, if it is its turn.
pub(super) fn try_claim(
    db: &Connection,
    me: i64,
    id: i64,
    now: Timestamp,
) -> Result<TurnStatus, StoreError> {
    let message = message_state(db, me, id)?;
    if let Some(turn) = message.turn(me) {
        return Ok(turn);
    }
    let claim = claim(db, me, &message, inbound::PROCESSING, now)?;
    Ok(TurnStatus::Claimed(claim))
}

/// Claims a message for its next attempt.
pub(super) fn claim(
    db: &Connection,
    me: i64,
    message: &MessageState,
    state: i64,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    let claim = message.next_claim(now);
    // By ID alone: the caller has read the row under the write lock of this transaction.
    db.prepare_cached(
        "UPDATE inbound SET state = ?2, owner = ?3, attempt = ?4, claimed_at = ?5 WHERE id = ?1",
    )?
    .execute(params![
        claim.id,
        state,
        me,
        claim.attempt,
        now.as_microsecond()
    ])?;
    Ok(claim)
}

/// Releases the claims of this process that are older than `before` and not in `running`.
pub(super) fn release_stale_claims(
    db: &Connection,
    me: i64,
    running: &[i64],
    before: Timestamp,
) -> Result<u64, StoreError> {
    // Open messages (below 3). Without INDEXED BY, SQLite would scan the whole table for them. `claimed_at` excludes a
    // claim whose result is still on its way to the caller.
    let ids: Vec<i64> = db
        .prepare_cached(
            "SELECT id FROM inbound INDEXED BY inbound_open WHERE state < 3 AND owner = ?1 AND claimed_at < ?2",
        )?
        .query_map(params![me, before.as_microsecond()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut released = 0;
    for id in ids.iter().filter(|id| !running.contains(id)) {
        release_claim(db, *id)?;
        released += 1;
    }
    Ok(released)
}

/// Releases a claim, so that the backlog or a redelivery can claim the message.
fn release_claim(db: &Connection, id: i64) -> Result<(), StoreError> {
    // PROCESSING (1) becomes RECEIVED (0). A deferred message stays DEFERRED (2): Twilio has the empty response for it.
    db.prepare_cached(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE id = ?1 AND state < 3",
    )?
    .execute([id])?;
    Ok(())
}

/// Releases all claims of this process.
pub(super) fn release_claims(db: &Connection, me: i64) -> Result<(), StoreError> {
    // Open messages (below 3): PROCESSING (1) becomes RECEIVED (0). A message without an owner does not count as
    // crashed when the next server claims it.
    db.execute(
        "UPDATE inbound INDEXED BY inbound_open SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
         WHERE state < 3 AND owner = ?1",
        [me],
    )?;
    Ok(())
}
