//! [`Outbox::claim`](crate::store::outbox::Outbox::claim) in SQLite.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::reading::message;
use crate::clock::after;
use crate::store::error::StoreError;
use crate::store::outbox::{ClaimedOutbox, LOOKUP_GRACE, MAX_PAUSE};
use crate::store::shared::conditions::opted_out;

// These statements run every second on a table of everything that was ever sent. SQLite uses the partial index of open
// messages only if the condition contains the index's own condition, `state < 4` (below SENT).

/// Marks the calls of dead processes as unknown.
// SENDING (1) becomes UNKNOWN (2). Any other owner is dead, because one server owns the file. Twilio may have accepted
// the message, so it is not sent again.
const MARK_ORPHANS_UNKNOWN: &str = "UPDATE outbound SET state = 2, owner = NULL, not_before = ?2 \
     WHERE state = 1 AND state < 4 AND owner <> ?1";

/// Ends pauses that are longer than any pause, because the clock was set back after they were stored.
// PENDING and UNKNOWN (0, 2) only: in other states `not_before` has no effect. Messages with a send time from the rate
// limit, `due`, may lie further ahead.
const END_LONG_PAUSES: &str = "UPDATE outbound SET not_before = ?1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > ?2 AND due IS NULL";

/// Finds the messages that may be sent now: PENDING (0) and due.
const DUE_MESSAGES: &str = concat!(
    "SELECT r.id FROM outbound r WHERE r.state = 0 AND r.state < 4 AND r.not_before <= ?1 AND ",
    // Only the first of its queue, so that a user gets messages in their order.
    "r.id = (SELECT q.id FROM outbound_in_queue q WHERE q.sender = r.sender AND q.address = r.address AND q.account = r.account \
       AND (q.keeps_place OR q.not_before <= ?1) ORDER BY q.id LIMIT 1) AND ",
    // A part of a reply only once every part before it is SENT or SUPPRESSED (4, 6). One that was sent less than ?3 ago must
    // also be delivered or have failed (ranks from 4). `abs`: a send further ahead dates from before the clock was set back.
    "(r.inbound IS NULL OR NOT EXISTS (\
       SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND (p.state NOT IN (4, 6) \
         OR (p.state = 4 AND p.rank < 4 AND abs(?1 - p.sent_at) < ?3)))) ",
    "ORDER BY r.not_before, r.id LIMIT ?2"
);

/// Claims the messages that may be sent now, or suppresses them if their user has opted out.
pub(super) fn claim(
    db: &Connection,
    me: i64,
    limit: usize,
    wait: Duration,
    now: Timestamp,
) -> Result<ClaimedOutbox, StoreError> {
    // Before the claims: an unknown message keeps the later messages to its user waiting.
    db.prepare_cached(MARK_ORPHANS_UNKNOWN)?
        .execute(params![me, after(now, LOOKUP_GRACE).as_microsecond()])?;
    db.prepare_cached(END_LONG_PAUSES)?
        .execute([now.as_microsecond(), after(now, MAX_PAUSE).as_microsecond()])?;
    let mut outbox = ClaimedOutbox::default();
    loop {
        let claimed = &mut outbox.messages;
        let ids: Vec<i64> = db
            .prepare_cached(DUE_MESSAGES)?
            .query_map(
                params![
                    now.as_microsecond(),
                    i64::try_from(limit - claimed.len()).unwrap_or(i64::MAX),
                    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
                ],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        let mut suppressed = false;
        for id in ids {
            // In the transaction of the claim: an opt-out that was committed before always suppresses the message.
            if suppress(db, id)? {
                suppressed = true;
                outbox.suppressed.push(message(db, id, now)?);
                continue;
            }
            // To SENDING (1). By ID alone: the row was found in this transaction, under the write lock.
            db.prepare_cached(
                "UPDATE outbound SET state = 1, owner = ?2, attempt = attempt + 1, sent_at = ?3 WHERE id = ?1",
            )?
            .execute(params![id, me, now.as_microsecond()])?;
            claimed.push(message(db, id, now)?);
        }
        // A suppressed message makes way for the next one of its reply or of its user, so search again.
        if !suppressed || claimed.len() >= limit {
            return Ok(outbox);
        }
    }
}

/// Suppresses a message whose user has opted out: it becomes SUPPRESSED (6). The confirmation of the opt-out is sent.
const SUPPRESS_OPTED_OUT: &str = concat!(
    "UPDATE outbound SET state = 6, reason = 'the user has opted out' WHERE id = ?1 AND confirms_opt_out IS NULL AND ",
    opted_out!("outbound"),
);

fn suppress(db: &Connection, id: i64) -> Result<bool, StoreError> {
    let suppressed = db.prepare_cached(SUPPRESS_OPTED_OUT)?.execute([id])?;
    Ok(suppressed > 0)
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
            MARK_ORPHANS_UNKNOWN,
            END_LONG_PAUSES,
            DUE_MESSAGES,
            SUPPRESS_OPTED_OUT,
        ] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                assert!(!step.starts_with("SCAN"), "{step}: {sql}");
            }
        }
    }
}
