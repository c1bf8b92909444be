//! Inbound messages in SQLite: their reply paths, failures, and the messages behind them.
//!
//! A transaction holds the write lock from its start, so rows that it has read do not change before it commits.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::reading::message_state;
use crate::store::error::StoreError;
use crate::store::journal::{
    Claim, FailOutcome, QueuedMessage, ReplyDecision, ReplyPath, SavedResponse,
};
use crate::store::redacted_params::RedactedParams;
use crate::store::states::inbound;
use crate::store::{decisions, packing};

/// Decides the reply path of a message, unless it is decided.
pub(super) fn decide(
    db: &Connection,
    me: i64,
    id: i64,
    path: &ReplyPath,
    now: Timestamp,
) -> Result<ReplyDecision, StoreError> {
    let message = message_state(db, me, id)?;
    // Compare and set: the state was read under the write lock, so of a deadline and a handler that finish at the same
    // time the first one decides.
    let is_open = matches!(message.state, inbound::RECEIVED | inbound::PROCESSING);
    match path {
        // A failed message can still get the fallback text, but cannot be deferred: no handler runs that would reply.
        ReplyPath::Twiml(twiml) if is_open || message.state == inbound::FAILED => {
            let twiml = decisions::stored_response(twiml.clone());
            // To ANSWERED (3). Without an owner, a handler that still runs has lost its claim.
            db.prepare_cached(
                "UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1",
            )?
            .execute(params![id, twiml])?;
            Ok(ReplyDecision::Inline(SavedResponse { twiml }))
        }
        ReplyPath::Rest if is_open => {
            // To DEFERRED (2). A queued message, in RECEIVED (0), is released to the backlog. A running handler keeps
            // its claim and queues the reply later.
            db.prepare_cached(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = ?2 WHERE id = ?1",
            )?
            .execute(params![id, now.as_microsecond()])?;
            Ok(ReplyDecision::ViaRest)
        }
        _ => Ok(message.reply_decision()),
    }
}

/// Records a failed attempt and its reason.
pub(super) fn record_failure(
    db: &Connection,
    me: i64,
    claim: Claim,
    reason: &str,
    last_attempt: bool,
) -> Result<FailOutcome, StoreError> {
    // Fenced by the claim. Only PROCESSING (1) can become FAILED (5). A message in DEFERRED (2) becomes DEAD (6):
    // Twilio has its response, so no redelivery would retry it.
    let failed: Option<i64> = db
        .prepare_cached(
            "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT ?5 THEN 5 ELSE 6 END, reason = ?4 \
             WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 RETURNING state",
        )?
        .query_row(
            params![claim.id, me, claim.attempt, reason, last_attempt],
            |row| row.get(0),
        )
        .optional()?;
    Ok(match failed {
        Some(inbound::FAILED) => FailOutcome::Retryable,
        Some(_) => FailOutcome::Dead,
        None => {
            let message = message_state(db, me, claim.id)?;
            decisions::failure_not_recorded(message.reply_decision_for(me, claim))
        }
    })
}

/// Lists messages behind a claimed one that no process handles.
pub(super) fn queued_behind(
    db: &Connection,
    me: i64,
    message: i64,
    limit: u32,
) -> Result<Vec<QueuedMessage>, StoreError> {
    // Queued messages, in RECEIVED (0), and those that became DEFERRED (2) while queued: they have no owner, or a dead
    // one. Expired content cannot be merged. `state < 3` is the condition of the partial index.
    let mut statement = db.prepare_cached(
        "SELECT id, params, received_at FROM inbound INDEXED BY inbound_open \
         WHERE conversation = (SELECT conversation FROM inbound WHERE id = ?1) AND id > ?1 AND state < 3 \
         AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?2))) AND params IS NOT NULL ORDER BY id LIMIT ?3",
    )?;
    let mut found = statement.query(params![message, me, limit])?;
    let mut queued = Vec::new();
    while let Some(row) = found.next()? {
        queued.push(QueuedMessage {
            id: row.get(0)?,
            params: RedactedParams(row.get(1)?),
            received_at: packing::time(row.get(2)?)?,
        });
    }
    Ok(queued)
}
