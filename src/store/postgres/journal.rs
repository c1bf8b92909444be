//! Inbound messages in PostgreSQL: their reply paths, failures, and the messages behind them.
//!
//! A handler or a request changes a message's state by compare-and-set: one UPDATE whose condition names the states
//! that it may change, and owner and attempt if it needs the claim.

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::conditions::is_owned;
use super::error::CallError;
use super::reading::read_state;
use super::text::{pack, unpack};
use crate::store::journal::{
    Claim, FailOutcome, QueuedMessage, ReplyDecision, ReplyPath, SavedResponse,
};
use crate::store::redacted_params::RedactedParams;
use crate::store::states::inbound;
use crate::store::{decisions, packing};

/// Decides the reply path of a message whose path is open. Needs no claim.
pub(super) async fn decide(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    path: ReplyPath,
    now: Timestamp,
) -> Result<ReplyDecision, CallError> {
    let is_rest = path == ReplyPath::Rest;
    let (query, decision) = match path {
        // Compare and set: from RECEIVED, PROCESSING or FAILED (0, 1, 5) to ANSWERED (3). A failed message is included:
        // the fallback call's text is its reply. Without an owner, a handler that still runs has lost its claim.
        ReplyPath::Twiml(twiml) => {
            let twiml = decisions::stored_response(twiml);
            let query = sqlx::query(
                "UPDATE inbound SET state = 3, owner = NULL, response = $2 WHERE id = $1 AND state IN (0, 1, 5)",
            )
            .bind(id)
            .bind(twiml.as_deref().map(pack));
            (
                query,
                ReplyDecision::Inline(SavedResponse {
                    twiml: twiml.clone(),
                }),
            )
        }
        // Compare and set: to DEFERRED (2). A message that waits for its turn (0, RECEIVED) is released, since its
        // request ends: the backlog handles it. A handler that runs (1, PROCESSING) keeps its claim and replies via the
        // REST API. A failed message (5) has no reply to send.
        ReplyPath::Rest => {
            let query = sqlx::query(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = $2 \
                 WHERE id = $1 AND state IN (0, 1)",
            )
            .bind(id)
            .bind(now.as_microsecond());
            (query, ReplyDecision::ViaRest)
        }
    };
    if query.execute(&mut *db).await?.rows_affected() > 0 {
        return Ok(decision);
    }
    let message = read_state(db, me, id).await?;
    match message.state {
        // Another transaction opened the path between the two statements, for example a redelivery
        // that starts an attempt.
        inbound::RECEIVED | inbound::PROCESSING => Err(CallError::Conflict),
        inbound::FAILED if !is_rest => Err(CallError::Conflict),
        _ => Ok(message.reply_decision()),
    }
}

/// Records a failed attempt and its reason.
pub(super) async fn record_failure(
    db: &mut PgConnection,
    me: i64,
    claim: Claim,
    reason: &'static str,
    last_attempt: bool,
) -> Result<FailOutcome, CallError> {
    // Fenced by the claim. Only PROCESSING (1) can get another request, and becomes FAILED (5). DEFERRED (2) becomes
    // DEAD (6), since Twilio has its response.
    let failed: Option<i64> = sqlx::query_scalar(
        "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT $5 THEN 5 ELSE 6 END, reason = $4 \
         WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING state",
    )
    .bind(claim.id)
    .bind(me)
    .bind(i64::from(claim.attempt))
    .bind(reason)
    .bind(last_attempt)
    .fetch_optional(&mut *db)
    .await?;
    Ok(match failed {
        Some(inbound::FAILED) => FailOutcome::Retryable,
        Some(_) => FailOutcome::Dead,
        // Nothing was changed: the message is decided, or the claim is lost.
        None => {
            let message = read_state(db, me, claim.id).await?;
            decisions::failure_not_recorded(message.reply_decision_for(me, claim))
        }
    })
}

/// Messages that are queued behind a message and that no live process handles, oldest first.
// A message in RECEIVED (0) is in the list even if a process owns it: its request only waits for its turn. One in
// DEFERRED (2) must have no live owner. `state < 3` is the condition of the partial index. A message without `params`
// has lost its content by age and cannot be merged.
const QUEUED_BEHIND: &str = concat!(
    "SELECT i.id, i.params, i.received_at FROM inbound i \
     WHERE i.conversation = (SELECT conversation FROM inbound WHERE id = $2) AND i.id > $2 AND i.state < 3 \
     AND (i.state = 0 OR (i.state = 2 AND NOT ",
    is_owned!("$1"),
    ")) AND i.params IS NOT NULL ORDER BY i.id LIMIT $3"
);

/// Lists messages behind a claimed one that no live process handles.
pub(super) async fn queued_behind(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    limit: u32,
) -> Result<Vec<QueuedMessage>, CallError> {
    let found = sqlx::query(QUEUED_BEHIND)
        .bind(me)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    let queued = found.into_iter().map(|row| {
        Ok(QueuedMessage {
            id: row.try_get(0)?,
            params: RedactedParams(unpack(row.try_get(1)?)),
            received_at: packing::time(row.try_get(2)?)?,
        })
    });
    queued.collect()
}
