//! [`Outbox::claim`](crate::store::outbox::Outbox::claim) in PostgreSQL.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::conditions::has_valid_lease;
use super::error::CallError;
use super::reading::{message, read_message};
use crate::clock::after;
use crate::store::outbox::{ClaimedOutbox, LOOKUP_GRACE, MAX_PAUSE, MAX_ROUNDS};
use crate::store::shared::conditions::{has_new_owner, must_be_suppressed};
use crate::store::shared::due_messages::{
    self, head_of_queue, is_first_of_conversation, is_next_part,
};
use crate::store::states::{self, outbound, user_opted_out};

/// Makes messages unknown that a dead process was sending, and releases those that it was preparing.
// SENDING (1) becomes UNKNOWN (2). The process may have died after its call reached Twilio, so the call must not be
// repeated on a guess. With `preparing`, no call was made: the message becomes PENDING (0), as it was before.
const RELEASE_ORPHANS: &str = concat!(
    "UPDATE outbound r SET state = CASE WHEN r.preparing THEN 0 ELSE 2 END, owner = NULL, \
     attempt = r.attempt - CASE WHEN r.preparing THEN 1 ELSE 0 END, \
     not_before = CASE WHEN r.preparing THEN r.not_before ELSE $2 END, preparing = NULL \
     WHERE r.state = 1 AND r.owner <> $1 AND NOT ",
    has_valid_lease!("r.owner"),
);

/// Ends pauses that would last too long, because they were written before the clock was set back.
// PENDING and UNKNOWN (0, 2) only: in other states `not_before` has no effect. `due` is the send time of a rate-limited
// message, which may be far ahead. `state < 4` repeats the condition of the partial index `outbound_open`, so that
// PostgreSQL can use it.
const END_LONG_PAUSES: &str = "UPDATE outbound SET not_before = $1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > $2 AND due IS NULL";

/// Claims due messages, suppresses those whose user has opted out, and fails those whose address is of another user now.
// From PENDING (0) to SENDING (1), to SUPPRESSED (6), or to FAILED (5).
//
// Parameters: 1 is the time, 2 the wait for a delivery, 3 the messages that `find_due` found, 4 the maximum number, 5 this
// process, 6 the reason of a failed message.
const CLAIM: &str = concat!(
    "WITH due AS (SELECT r.id, r.inbound, r.account, r.address_key, r.sender, r.consent_key, r.service, r.confirms_opt_out FROM outbound r \
       WHERE r.id = ANY ($3) AND r.state = 0 AND r.not_before <= $1 AND ",
    // Only the first of its queue, so that a user gets messages in their order. Checked again, in the snapshot of this
    // statement.
    "r.id = ",
    head_of_queue!("r"),
    " AND ",
    is_first_of_conversation!(),
    " AND ",
    is_next_part!(),
    // SKIP LOCKED: a locked row belongs to a transaction that is claiming it or recording its outcome. Two messages of one
    // conversation are not claimed concurrently, because the subqueries of the younger one still count the older one while it
    // is open.
    " ORDER BY r.not_before, r.id LIMIT $4 FOR UPDATE SKIP LOCKED), ",
    // Check in the statement that claims, so that an opt-out or split that was committed before the claim always
    // counts. The confirmation of the opt-out is sent.
    "checked AS (SELECT due.id, ",
    has_new_owner!("due"),
    " AS new_owner, ",
    must_be_suppressed!("due"),
    " AS opted_out FROM due), ",
    // A stopped message gets no owner and counts no attempt.
    "m AS (UPDATE outbound r SET state = CASE WHEN c.new_owner THEN 5 WHEN c.opted_out THEN 6 ELSE 1 END, \
       reason = CASE WHEN c.new_owner THEN $6 WHEN c.opted_out THEN '",
    user_opted_out!(),
    "' ELSE r.reason END, \
       owner = CASE WHEN c.new_owner OR c.opted_out THEN r.owner ELSE $5 END, \
       attempt = r.attempt + CASE WHEN c.new_owner OR c.opted_out THEN 0 ELSE 1 END, \
       sent_at = CASE WHEN c.new_owner OR c.opted_out THEN r.sent_at ELSE $1 END, preparing = NULL FROM checked c WHERE r.id = c.id RETURNING r.*) ",
    "SELECT ",
    message!(),
    ", m.state FROM m ORDER BY m.id"
);

/// Messages to find for each one to claim: other servers may be claiming the first ones.
const SPARE: usize = 4;
/// Maximum number of searches whose messages other servers have claimed in the meantime.
const MAX_LOST_SEARCHES: usize = 3;

/// Fails the later parts of replies whose parts have failed: they would wait for an operator, who cannot release them.
// PENDING (0) only. SKIP LOCKED: an operator may release them concurrently, and the claim must not wait.
const STOP_LATER_PARTS: &str = "WITH later AS (SELECT p.id FROM outbound p WHERE p.state = 0 AND p.inbound IN (\
       SELECT f.inbound FROM outbound f WHERE f.id = ANY ($1)) ORDER BY p.id FOR UPDATE SKIP LOCKED) \
     UPDATE outbound r SET state = 5, reason = $2 FROM later WHERE r.id = later.id";

/// Runs [`CLAIM`], after the messages of dead processes and of a clock that was set back are corrected.
pub(super) async fn claim(
    db: &mut PgConnection,
    me: i64,
    limit: usize,
    wait: Duration,
    now: Timestamp,
) -> Result<ClaimedOutbox, CallError> {
    // Twilio's status callback may still prove that the call was processed, so the look-up waits for it.
    sqlx::query(RELEASE_ORPHANS)
        .bind(me)
        .bind(after(now, LOOKUP_GRACE).as_microsecond())
        .execute(&mut *db)
        .await?;
    sqlx::query(END_LONG_PAUSES)
        .bind(now.as_microsecond())
        .bind(after(now, MAX_PAUSE).as_microsecond())
        .execute(&mut *db)
        .await?;
    let mut outbox = ClaimedOutbox::default();
    let mut lost_searches = 0;
    for _ in 0..MAX_ROUNDS {
        let wanted = limit - outbox.messages.len();
        if wanted == 0 {
            break;
        }
        let due = due_messages::find_due(db, wanted.saturating_mul(SPARE), wait, now).await?;
        if due.is_empty() {
            break;
        }
        let claimed = sqlx::query(CLAIM)
            .bind(now.as_microsecond())
            .bind(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
            .bind(due)
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .bind(me)
            .bind(states::NEW_OWNER)
            .fetch_all(&mut *db)
            .await?;
        if claimed.is_empty() {
            lost_searches += 1;
            if lost_searches == MAX_LOST_SEARCHES {
                break;
            }
        } else if !sort_claimed(db, &claimed, &mut outbox, now).await? {
            break;
        }
    }
    Ok(outbox)
}

/// Adds the claimed and the stopped messages to the outbox. Returns true if some were stopped.
async fn sort_claimed(
    db: &mut PgConnection,
    claimed: &[PgRow],
    outbox: &mut ClaimedOutbox,
    now: Timestamp,
) -> Result<bool, CallError> {
    let mut failed: Vec<i64> = Vec::new();
    let mut has_stopped = false;
    for row in claimed {
        let message = read_message(row, now)?;
        // The column after those of `message!`.
        let state: i64 = row.try_get(16)?;
        has_stopped |= state != outbound::SENDING;
        match state {
            outbound::SUPPRESSED => outbox.suppressed.push(message),
            outbound::FAILED => {
                failed.push(message.id);
                outbox.new_owner.push(message);
            }
            _ => outbox.messages.push(message),
        }
    }
    if !failed.is_empty() {
        sqlx::query(STOP_LATER_PARTS)
            .bind(failed)
            .bind(states::NEW_OWNER)
            .execute(db)
            .await?;
    }
    Ok(has_stopped)
}
