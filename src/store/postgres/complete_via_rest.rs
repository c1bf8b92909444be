//! [`Journal::complete_via_rest`](crate::store::journal::Journal::complete_via_rest) in PostgreSQL, in one statement.

use sqlx::PgConnection;

use super::completion::{CompletionParams, save_completion};
use super::error::CallError;
use super::new_outbound::{Columns, new_outbound_rows};
use crate::store::journal::Completion;

/// Completes a message and puts its reply into the outbox.
// One statement: a crash leaves either the claim or the complete reply, never some of its parts.
//
// Parameters: 1 to 14 as in `save_completion!`, 15 to 23 the new messages, 24 the reason.
const COMPLETE_VIA_REST: &str = concat!(
    // To DONE (4) from PROCESSING or DEFERRED (1, 2), fenced by owner and attempt.
    "WITH completed AS (UPDATE inbound SET state = 4, reason = $25 \
     WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING id, conversation, unordered), ",
    save_completion!(),
    // In PENDING (0). Reads from `completed`, so a lost claim queues nothing. A retried message hands `unordered` on: its
    // reply is late, and later replies do not wait for it.
    ", queued AS (INSERT INTO outbound (inbound, ordinal, account, auth_token, sender, address, address_key, consent_key, service, template, state, \
       not_before, created_at, params, unordered) SELECT completed.id, r.ordinal - 1, r.account, r.auth_token, r.sender, r.address, \
       r.address_key, r.consent_key, r.service, r.template, 0, $7, $7, r.params, completed.unordered FROM completed, ",
    new_outbound_rows!(
        "$16", "$17", "$18", "$19", "$20", "$21", "$22", "$23", "$24"
    ),
    // Ids rise with the parts, since the outbox sends by id.
    " ORDER BY r.ordinal) SELECT id FROM completed"
);

/// Runs [`COMPLETE_VIA_REST`]. Returns false if the claim is lost.
pub(super) async fn complete_via_rest(
    db: &mut PgConnection,
    replies: &Columns,
    reason: Option<&'static str>,
    completion: &Completion,
    params: &CompletionParams,
    records_events: bool,
) -> Result<bool, CallError> {
    let query = replies.bind(params.query(COMPLETE_VIA_REST)).bind(reason);
    let completed: Option<(i64,)> = query.fetch_optional(&mut *db).await?;
    if records_events && completed.is_some() {
        params.record_event(db, completion).await?;
    }
    Ok(completed.is_some())
}
