//! [`Journal::complete_via_rest`](crate::store::journal::Journal::complete_via_rest) in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::completion::{record_completion, save_completion};
use super::outbox;
use crate::store::error::StoreError;
use crate::store::handoff::HandoffChange;
use crate::store::journal::{Claim, Completion};
use crate::store::outbound_message::NewOutbound;
use crate::store::states;

/// Completes a claimed message and queues its replies. Returns false if the claim is lost.
pub(super) fn complete_via_rest(
    db: &Connection,
    me: i64,
    claim: Claim,
    replies: &[NewOutbound],
    completion: &Completion,
    now: Timestamp,
    records_events: bool,
) -> Result<bool, StoreError> {
    // Only a TwiML response can redirect, so the handoff begins without this message.
    let reason = completion
        .handoff
        .as_ref()
        .is_some_and(HandoffChange::is_redirect)
        .then_some(states::NOT_REDIRECTED)
        .or(completion.reason);
    // To DONE (4) from PROCESSING or DEFERRED (1, 2). Fenced by the claim: owner and attempt match only if no other
    // attempt has begun since. The replies are inserted in the same transaction, so a crash neither loses nor repeats
    // them.
    let conversation: Option<i64> = db
        .prepare_cached(
            "UPDATE inbound SET state = 4, reason = ?4 WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 \
             RETURNING conversation",
        )?
        .query_row(params![claim.id, me, claim.attempt, reason], |row| row.get(0))
        .optional()?;
    let Some(conversation) = conversation else {
        return Ok(false);
    };
    outbox::insert(db, Some(claim.id), replies, now)?;
    save_completion(db, me, conversation, completion, now)?;
    record_completion(db, claim, conversation, completion, now, records_events)?;
    Ok(true)
}
