//! [`Journal::complete_inline`](crate::store::journal::Journal::complete_inline) in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::completion::{record_completion, save_completion};
use super::reading::message_state;
use crate::store::error::StoreError;
use crate::store::journal::{Claim, Completion, ReplyDecision, SavedResponse};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::states;

/// SQL condition: the author of the message `$row` has opted out, under any of their addresses.
// Unary `+` limits the index search to the key.
macro_rules! author_opted_out {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM conversation_address a JOIN consent c ON c.consent_key = a.consent_key WHERE a.conversation = ",
            $row,
            ".conversation AND c.suppressed IS NOT NULL AND (+c.scope = a.sender OR +c.scope = ",
            $row,
            ".service OR +c.scope = (SELECT v.service FROM service_sender v WHERE v.sender = a.sender)))"
        )
    };
}

/// SQL after SELECT: the open replies in the conversation of the message `$row`, if `?4`.
// Replies only, and none that an operator has released or retried: those are late already. To any address in the conversation:
// the user sees one chat. CROSS JOIN searches the addresses first, which are few.
macro_rules! from_open_replies {
    ($row:literal) => {
        concat!(
            " FROM conversation_address k CROSS JOIN outbound_in_queue q ON q.sender = k.sender AND q.address_key = k.address_key \
              WHERE ?4 AND k.conversation = ",
            $row,
            ".conversation AND q.account = ",
            $row,
            ".account AND q.inbound IS NOT NULL AND q.unordered IS NULL"
        )
    };
}

/// Reads a claimed message whose reply path is undecided: its conversation, whether its author has opted out, and the
/// time of creation of the oldest open reply in the conversation.
const UNDECIDED_MESSAGE: &str = concat!(
    "SELECT i.conversation, ",
    author_opted_out!("i"),
    ", (SELECT min(q.created_at)",
    from_open_replies!("i"),
    ") ",
    // PROCESSING (1) only: a deferred message replies via the REST API. Fenced by the claim.
    "FROM inbound i WHERE i.id = ?1 AND i.state = 1 AND i.owner = ?2 AND i.attempt = ?3"
);

/// Saves the response of a claimed message, if nothing else has to be decided or saved.
///
/// Changes nothing if its author has opted out, if an older reply is open, or if the claim is lost.
// From PROCESSING (1) to ANSWERED (3), fenced by the claim. The statement that writes has the conditions of
// `UNDECIDED_MESSAGE`, which saves a statement for most messages.
const COMPLETE_USUAL: &str = concat!(
    "UPDATE inbound SET state = 3, reason = ?5, response = ?6, claimed_at = ?7 \
     WHERE id = ?1 AND state = 1 AND owner = ?2 AND attempt = ?3 AND NOT ",
    author_opted_out!("inbound"),
    " AND NOT EXISTS (SELECT 1",
    from_open_replies!("inbound"),
    ")"
);

/// Runs [`COMPLETE_USUAL`]. Returns false if it has changed nothing.
fn complete_usual(
    db: &Connection,
    me: i64,
    claim: Claim,
    twiml: Option<&str>,
    completion: &Completion,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let completed = db.prepare_cached(COMPLETE_USUAL)?.execute(params![
        claim.id,
        me,
        claim.attempt,
        completion.keeps_order,
        completion.reason,
        twiml,
        now.as_microsecond(),
    ])?;
    Ok(completed > 0)
}

pub(super) fn complete_inline(
    db: &Connection,
    me: i64,
    claim: Claim,
    twiml: Option<&str>,
    completion: &Completion,
    now: Timestamp,
    records_events: bool,
) -> Result<ReplyDecision, StoreError> {
    if completion.changes_only_message() && complete_usual(db, me, claim, twiml, completion, now)? {
        return Ok(ReplyDecision::Inline(SavedResponse {
            twiml: twiml.map(str::to_owned),
        }));
    }
    // A SELECT and then an UPDATE: for an UPDATE with RETURNING, SQLite makes a temporary table with a journal.
    let undecided: Option<(i64, bool, Option<i64>)> = db
        .prepare_cached(UNDECIDED_MESSAGE)?
        .query_row(
            params![claim.id, me, claim.attempt, completion.keeps_order],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((conversation, opted_out, oldest_reply)) = undecided else {
        return Ok(message_state(db, me, claim.id)?.reply_decision_for(me, claim));
    };
    // To DEFERRED (2). The claim stays valid, and `complete_via_rest` with it queues the reply behind the older one.
    if oldest_reply.is_some_and(|created_at| must_wait_for(created_at, now)) {
        db.prepare_cached("UPDATE inbound SET state = 2, claimed_at = ?2 WHERE id = ?1")?
            .execute([claim.id, now.as_microsecond()])?;
        return Ok(ReplyDecision::ViaRest);
    }
    // After a STOP that arrived while the handler ran, nothing may follow its confirmation.
    let response = twiml.filter(|_| !opted_out);
    // To ANSWERED (3). By ID alone: the row was read in this transaction, under the write lock.
    let suppressed = opted_out && twiml.is_some();
    let reason = suppressed
        .then_some(states::REPLY_SUPPRESSED)
        .or(completion.reason);
    db.prepare_cached(
        "UPDATE inbound SET state = 3, reason = ?4, response = ?2, claimed_at = ?3 WHERE id = ?1",
    )?
    .execute(params![claim.id, response, now.as_microsecond(), reason])?;
    save_completion(db, me, conversation, completion, now)?;
    record_completion(db, claim, conversation, completion, now, records_events)?;
    Ok(ReplyDecision::Inline(SavedResponse {
        twiml: response.map(str::to_owned),
    }))
}

/// Returns true if later replies wait for an open reply that was created at this time.
fn must_wait_for(created_at: i64, now: Timestamp) -> bool {
    // The absolute difference: a reply from the future was created before the clock was set back, and must not make
    // later ones wait for longer.
    let age = now.as_microsecond().abs_diff(created_at);
    u128::from(age) < MAX_ORDER_WAIT.as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Access;
    use crate::store::sqlite::schema::DatabaseFile;

    #[test]
    fn older_open_replies_queries_use_index() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in [UNDECIDED_MESSAGE, COMPLETE_USUAL] {
            let sql = format!("EXPLAIN QUERY PLAN {sql}");
            let mut plan = db.prepare(&sql).unwrap();
            let mut rows = plan.raw_query();
            let mut steps: Vec<String> = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get(3).unwrap());
            }
            let by_index =
                "SEARCH r USING INDEX outbound_queue (sender=? AND address_key=? AND account=?)";
            assert!(steps.iter().any(|step| step == by_index), "{steps:?}");
            // The statement runs for each reply, so it must not get slower with the number of stored messages.
            let is_slow = |step: &&String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            assert_eq!(steps.iter().find(is_slow), None);
        }
    }
}
