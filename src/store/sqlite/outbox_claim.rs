//! [`Outbox::claim`](crate::store::outbox::Outbox::claim) in SQLite.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::database::ready;
use super::reading::message;
use crate::clock::after;
use crate::store::error::StoreError;
use crate::store::outbox::{ClaimedOutbox, LOOKUP_GRACE, MAX_PAUSE, MAX_ROUNDS};
use crate::store::shared::conditions::{has_new_owner, must_be_suppressed};
use crate::store::shared::due_messages;
use crate::store::states::{self, outbound, user_opted_out};

// These statements run every second on a table of everything that was ever sent. SQLite uses the partial index of open
// messages only if the condition contains the index's own condition, `state < 4` (below SENT).

/// Marks the calls of dead processes as unknown, and releases the messages that they were preparing.
// SENDING (1) becomes UNKNOWN (2). Any other owner is dead, because one server owns the file. Twilio may have accepted
// the message, so it is not sent again. With `preparing`, no call was made: it becomes PENDING (0), as it was before.
const RELEASE_ORPHANS: &str = "UPDATE outbound SET state = CASE WHEN preparing THEN 0 ELSE 2 END, owner = NULL, \
     attempt = attempt - (preparing IS NOT NULL), not_before = CASE WHEN preparing THEN not_before ELSE ?2 END, preparing = NULL \
     WHERE state = 1 AND state < 4 AND owner <> ?1";

/// Ends pauses that are longer than any pause, because the clock was set back after they were stored.
// PENDING and UNKNOWN (0, 2) only: in other states `not_before` has no effect. Messages with a send time from the rate
// limit, `due`, may lie further ahead.
const END_LONG_PAUSES: &str = "UPDATE outbound SET not_before = ?1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > ?2 AND due IS NULL";

/// Claims the messages that may be sent now, suppresses those whose user has opted out, and fails those whose address is of
/// another user now.
pub(super) fn claim(
    db: &Connection,
    me: i64,
    limit: usize,
    wait: Duration,
    now: Timestamp,
) -> Result<ClaimedOutbox, StoreError> {
    // Before the claims: an unknown message keeps the later messages to its user waiting.
    db.prepare_cached(RELEASE_ORPHANS)?
        .execute(params![me, after(now, LOOKUP_GRACE).as_microsecond()])?;
    db.prepare_cached(END_LONG_PAUSES)?
        .execute([now.as_microsecond(), after(now, MAX_PAUSE).as_microsecond()])?;
    let mut outbox = ClaimedOutbox::default();
    for _ in 0..MAX_ROUNDS {
        let claimed = &mut outbox.messages;
        let wanted = limit - claimed.len();
        let ids = ready(due_messages::find_due(&mut &*db, wanted, wait, now))?;
        let mut stopped = false;
        for id in ids {
            // In the transaction of the claim: an opt-out or split that was committed before always stops the message.
            if let Some(state) = stop(db, id)? {
                stopped = true;
                let message = message(db, id, now)?;
                if state == outbound::SUPPRESSED {
                    outbox.suppressed.push(message);
                } else {
                    outbox.new_owner.push(message);
                }
                continue;
            }
            // To SENDING (1). By ID alone: the row was found in this transaction, under the write lock.
            db.prepare_cached(
                "UPDATE outbound SET state = 1, owner = ?2, attempt = attempt + 1, sent_at = ?3, preparing = NULL WHERE id = ?1",
            )?
            .execute(params![id, me, now.as_microsecond()])?;
            claimed.push(message(db, id, now)?);
        }
        if !stopped || claimed.len() >= limit {
            break;
        }
    }
    Ok(outbox)
}

/// Stops a message that must not be sent: it becomes FAILED (5) if its address is of another user now, else SUPPRESSED (6) if its
/// user has opted out. The confirmation of an opt-out is sent.
const STOP: &str = concat!(
    "UPDATE outbound SET state = CASE WHEN ",
    has_new_owner!("outbound"),
    " THEN 5 ELSE 6 END, reason = CASE WHEN ",
    has_new_owner!("outbound"),
    " THEN ?2 ELSE '",
    user_opted_out!(),
    "' END WHERE id = ?1 AND (",
    must_be_suppressed!("outbound"),
    " OR ",
    has_new_owner!("outbound"),
    ") RETURNING state",
);

/// Fails the later parts of the reply: they would wait behind a failed one for an operator, who cannot release them.
const STOP_LATER_PARTS: &str = "UPDATE outbound SET state = 5, reason = ?2 \
     WHERE inbound = (SELECT f.inbound FROM outbound f WHERE f.id = ?1) AND state = 0";

/// Stops a message that must not be sent, and returns its state.
fn stop(db: &Connection, id: i64) -> Result<Option<i64>, StoreError> {
    let state = db
        .prepare_cached(STOP)?
        .query_row(params![id, states::NEW_OWNER], |row| row.get(0))
        .optional()?;
    if state == Some(outbound::FAILED) {
        db.prepare_cached(STOP_LATER_PARTS)?
            .execute(params![id, states::NEW_OWNER])?;
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Access;
    use crate::store::sqlite::schema::DatabaseFile;

    // The time of these statements must not grow with the number of completed messages.
    #[test]
    fn claim_statements_avoid_table_scans() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in [
            RELEASE_ORPHANS,
            END_LONG_PAUSES,
            due_messages::BY_TIME,
            due_messages::BY_QUEUE,
            STOP,
            STOP_LATER_PARTS,
        ] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                // The search by queue scans its lists of queues, of their heads and of those to send, and begins with the first
                // entry of an index.
                let is_bounded = [
                    "SCAN queue",
                    "SCAN head",
                    "SCAN next",
                    "SCAN f",
                    "SCAN o USING INDEX outbound_queue",
                    "SCAN CONSTANT ROW",
                ]
                .contains(&&*step);
                assert!(is_bounded || !step.starts_with("SCAN"), "{step}: {sql}");
            }
        }
    }
}
