//! [`Journal::complete_inline`](crate::store::journal::Journal::complete_inline) in PostgreSQL, in one statement.

use sqlx::PgConnection;

use super::completion::{CompletionParams, save_completion};
use super::error::CallError;
use super::reading::read_state;
use super::text::{pack, unpack};
use crate::store::journal::{Claim, Completion, ReplyDecision, SavedResponse};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::states::{self, inbound};

/// Saves a TwiML reply and completes its message, or defers the message because an older reply has to be sent first.
// One statement: either this reply or the `decide` of the request's deadline wins. Only a reply that wins changes the
// dialogue state and the handoff.
//
// Parameters: 1 to 15 as in `save_completion!`, 16 the TwiML, 17 whether the reply keeps the order, 18 the longest wait, 19 the
// reason, and 20 the reason of a suppressed reply.
const COMPLETE_INLINE: &str = concat!(
    // The oldest reply to any address in the conversation that is still to be sent. None that an operator has released or
    // retried, which is late already.
    "WITH oldest_reply AS (SELECT min(q.created_at) AS created_at FROM inbound i JOIN conversation_address k ON k.conversation = i.conversation \
       JOIN outbound_in_queue q ON q.sender = k.sender AND q.address_key = k.address_key AND q.account = i.account \
       WHERE $17 AND i.id = $1 AND q.inbound IS NOT NULL AND q.unordered IS NULL), ",
    // `abs`: a time in the future was written before the clock was set back, and must not extend the wait.
    "must_wait AS (SELECT FROM oldest_reply WHERE abs($7 - created_at) < $18), ",
    // From PROCESSING (1) to DEFERRED (2), fenced by owner and attempt. The claim stays valid, and the reply is queued
    // behind the older one with it.
    "message_deferred AS (UPDATE inbound SET state = 2, claimed_at = $7 \
       WHERE id = $1 AND state = 1 AND owner = $2 AND attempt = $3 AND EXISTS (SELECT FROM must_wait) RETURNING state), ",
    "checked AS (SELECT EXISTS (SELECT 1 FROM conversation_address a JOIN consent c ON c.consent_key = a.consent_key \
       WHERE a.conversation = m.conversation AND c.suppressed IS NOT NULL AND (c.scope = a.sender OR c.scope = m.service \
         OR c.scope = (SELECT v.service FROM service_sender v WHERE v.sender = a.sender))) AS opted_out \
     FROM inbound m WHERE m.id = $1), ",
    // From PROCESSING (1) to ANSWERED (3), fenced by owner and attempt. The opt-out is checked in the same statement: the
    // reply of a user who opted out after the claim becomes NULL, the empty response.
    "completed AS (UPDATE inbound i SET state = 3, \
       reason = CASE WHEN checked.opted_out AND $16::text IS NOT NULL THEN $20 ELSE $19 END, \
       response = CASE WHEN checked.opted_out THEN NULL ELSE $16::text END, claimed_at = $7 FROM checked \
     WHERE i.id = $1 AND i.state = 1 AND i.owner = $2 AND i.attempt = $3 AND NOT EXISTS (SELECT FROM must_wait) \
     RETURNING i.state, i.response, i.conversation), ",
    save_completion!(),
    // No row: the path was decided before, or the claim is lost.
    " SELECT state, response FROM completed UNION ALL SELECT state, NULL FROM message_deferred"
);

/// Runs [`COMPLETE_INLINE`].
pub(super) async fn complete_inline(
    db: &mut PgConnection,
    me: i64,
    claim: Claim,
    twiml: Option<&str>,
    completion: &Completion,
    params: &CompletionParams,
    records_events: bool,
) -> Result<ReplyDecision, CallError> {
    let decided: Option<(i64, Option<String>)> = params
        .query(COMPLETE_INLINE)
        .bind(twiml.map(pack))
        .bind(completion.keeps_order)
        .bind(i64::try_from(MAX_ORDER_WAIT.as_micros()).unwrap_or(i64::MAX))
        .bind(completion.reason)
        .bind(states::REPLY_SUPPRESSED)
        .fetch_optional(&mut *db)
        .await?;
    if records_events && matches!(decided, Some((inbound::ANSWERED, _))) {
        params.record_event(db, completion).await?;
    }
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
