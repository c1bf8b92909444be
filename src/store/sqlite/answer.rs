//! [`Journal::answer`](crate::store::Journal::answer) in SQLite: a reply is saved as TwiML, or goes behind older ones.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::journal::{State, end};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::{Answered, Claim, Decision, Ending, StoreError};

/// A claimed message whose answer is still open: its conversation, whether its author has opted out, and when the oldest
/// reply of the queue from `?4` to `?5` was created that later ones wait for. A part that stands behind a failed or held one
/// is not going to be sent, and so is not waited for.
const UNDECIDED: &str = "SELECT i.conversation, EXISTS (\
       SELECT 1 FROM conversation_address a JOIN consent c ON c.address = a.address \
       WHERE a.conversation = i.conversation AND c.opted_out IS NOT NULL \
       AND (+c.scope = a.us OR +c.scope = i.service)), \
     (SELECT r.created_at FROM reply r WHERE r.us = ?4 AND r.address = ?5 AND r.account = i.account AND r.state < 3 \
       AND r.inbound IS NOT NULL AND r.unordered IS NULL AND NOT EXISTS (\
         SELECT 1 FROM reply p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state IN (3, 5)) \
       ORDER BY r.id LIMIT 1) \
     FROM inbound i WHERE i.id = ?1 AND i.state = 1 AND i.owner = ?2 AND i.attempt = ?3";

pub(super) fn save(
    db: &Connection,
    me: i64,
    claim: Claim,
    twiml: Option<&str>,
    ending: &Ending,
    now: Timestamp,
) -> Result<Decision, StoreError> {
    let queue = ending.queue.as_ref();
    // Read first: an UPDATE with RETURNING makes SQLite keep a temporary table and a journal for it.
    let undecided: Option<(i64, bool, Option<i64>)> = db
        .prepare_cached(UNDECIDED)?
        .query_row(
            params![
                claim.id,
                me,
                claim.attempt,
                queue.map(|queue| queue.sender.as_str()),
                queue.map(|queue| queue.user.as_str())
            ],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((conversation, opted_out, oldest_reply)) = undecided else {
        return Ok(State::of(db, me, claim.id)?.decision_for(me, claim));
    };
    if oldest_reply.is_some_and(|created_at| keeps_order(created_at, now)) {
        db.prepare_cached("UPDATE inbound SET state = 2, claimed_at = ?2 WHERE id = ?1")?
            .execute([claim.id, now.as_microsecond()])?;
        return Ok(Decision::Deferred);
    }
    let saved = twiml.filter(|_| !opted_out);
    db.prepare_cached(
        "UPDATE inbound SET state = 3, reason = NULL, answer = ?2, claimed_at = ?3 WHERE id = ?1",
    )?
    .execute(params![claim.id, saved, now.as_microsecond()])?;
    end(db, me, conversation, ending, now)?;
    Ok(Decision::Answered(Answered {
        twiml: saved.map(str::to_owned),
    }))
}

/// Whether later replies wait for a reply of that time that is still being sent. One that seems to be created in the future
/// was saved by another clock, or before the clock was set back, and must not make them wait for longer.
fn keeps_order(created_at: i64, now: Timestamp) -> bool {
    let age = now.as_microsecond().abs_diff(created_at);
    u128::from(age) < MAX_ORDER_WAIT.as_micros()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Access;
    use crate::store::sqlite::schema::Place;

    #[test]
    fn older_replies_are_found_by_the_index_of_open_ones() {
        let place = Place {
            path: None,
            patience: Duration::ZERO,
        };
        let db = place.open(Access::Owner).unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {UNDECIDED}");
        let mut plan = db.prepare(&sql).unwrap();
        let mut rows = plan.raw_query();
        let mut steps: Vec<String> = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get(3).unwrap());
        }
        let by_index = "SEARCH r USING INDEX reply_line (us=? AND address=?)";
        assert!(steps.iter().any(|step| step == by_index), "{steps:?}");
        let is_slow = |step: &&String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert_eq!(steps.iter().find(is_slow), None);
    }
}
