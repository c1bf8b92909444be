//! [`Journal::complete_inline`](crate::store::journal::Journal::complete_inline) in PostgreSQL, in one statement.

use sqlx::PgConnection;

use super::completion::{CompletionParams, save_completion};
use super::error::CallError;
use super::reading::read_state;
use super::text::{pack, unpack};
use crate::store::journal::{Claim, ReplyDecision, ReplyQueue, SavedResponse};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::states::inbound;

/// Saves a TwiML reply and completes its message, or defers the message because an older reply has to be sent first.
// One statement: either this reply or the `decide` of the request's deadline wins. Only a reply that wins changes the
// dialogue state and the handoff.
//
// `oldest_reply` is the oldest reply to the same user that is PENDING, SENDING or UNKNOWN (below 3). A part behind a
// HELD or FAILED part (3, 5) of its reply will not be sent without an operator, so nothing waits for it. `unordered`
// marks what an operator has released or retried.
//
// `must_wait` limits the wait to MAX_ORDER_WAIT after that reply was created. `abs`: a time in the future was written
// before the clock was set back, and must not extend the wait.
//
// `message_deferred` moves the message from PROCESSING (1) to DEFERRED (2), and `completed` to ANSWERED (3). Both are
// fenced by owner and attempt.
//
// `completed` checks the opt-out in the statement that completes the message. The reply of a user who opted out after
// the claim becomes NULL, the empty response.
const COMPLETE_INLINE: &str = concat!(
    "WITH oldest_reply AS (SELECT r.created_at FROM outbound r WHERE r.sender = $13 AND r.address = $14 \
       AND r.account = (SELECT account FROM inbound WHERE id = $1) AND r.state < 3 AND r.inbound IS NOT NULL \
       AND r.unordered IS NULL AND NOT EXISTS (\
         SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state IN (3, 5)) \
       ORDER BY r.id LIMIT 1), \
     must_wait AS (SELECT FROM oldest_reply WHERE abs($7 - created_at) < $15), \
     message_deferred AS (UPDATE inbound SET state = 2, claimed_at = $7 \
       WHERE id = $1 AND state = 1 AND owner = $2 AND attempt = $3 AND EXISTS (SELECT FROM must_wait) RETURNING state), \
     completed AS (UPDATE inbound i SET state = 3, reason = NULL, response = CASE WHEN EXISTS (\
       SELECT 1 FROM conversation_address a JOIN consent c ON c.address = a.address \
       WHERE a.conversation = i.conversation AND c.opted_out IS NOT NULL AND (c.scope = a.sender OR c.scope = i.service)) \
       THEN NULL ELSE $12 END, claimed_at = $7 \
     WHERE i.id = $1 AND i.state = 1 AND i.owner = $2 AND i.attempt = $3 AND NOT EXISTS (SELECT FROM must_wait) \
     RETURNING i.state, i.response, i.conversation), ",
    save_completion!(),
    " SELECT state, response FROM completed UNION ALL SELECT state, NULL FROM message_deferred"
);

/// Runs [`COMPLETE_INLINE`].
pub(super) async fn complete_inline(
    db: &mut PgConnection,
    me: i64,
    claim: Claim,
    twiml: Option<&str>,
    queue: Option<&ReplyQueue>,
    params: &CompletionParams,
) -> Result<ReplyDecision, CallError> {
    let decided: Option<(i64, Option<String>)> = params
        .query(COMPLETE_INLINE)
        .bind(twiml.map(pack))
        .bind(queue.map(|queue| pack(queue.sender.as_str())))
        .bind(queue.map(|queue| pack(queue.user.as_str())))
        .bind(i64::try_from(MAX_ORDER_WAIT.as_micros()).unwrap_or(i64::MAX))
        .fetch_optional(&mut *db)
        .await?;
    Ok(match decided {
        Some((inbound::ANSWERED, saved)) => ReplyDecision::Inline(SavedResponse {
            twiml: saved.map(unpack),
        }),
        Some(_) => ReplyDecision::ViaRest,
        // Nothing was changed: the path was decided before, or the claim is lost.
        None => read_state(db, me, claim.id)
            .await?
            .reply_decision_for(me, claim),
    })
}
