//! Messages that were received while the store was unavailable, or whose journal was lost.

use sqlx::PgConnection;

use super::accept::{accept, find_id};
use super::error::CallError;
use super::text::pack;
use crate::store::new_inbound::NewInbound;
use crate::store::{packing, states};

/// Records a message received during an outage, with the fallback reply that was sent, if any.
pub(super) async fn backfill(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
    twiml: Option<&str>,
    records_events: bool,
) -> Result<(), CallError> {
    // The primary webhook may have been stored although its request got 503, so the message is not always new.
    let is_new = find_id(db, inbound).await?.is_none();
    if is_new {
        accept(db, me, inbound, records_events).await?;
    }
    let Some(id) = find_id(db, inbound).await? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The text was sent, so it is the reply: open (0, 1, 2) and FAILED (5) become ANSWERED (3), also a deferred
        // message whose reply is not in the outbox yet. A handler that still runs loses its claim: the row has no owner
        // and is not open. DONE (4) and DEAD (6) stay.
        sqlx::query(
            "UPDATE inbound SET state = 3, owner = NULL, response = $2 WHERE id = $1 AND state IN (0, 1, 2, 5)",
        )
        .bind(id)
        .bind(pack(twiml))
        .execute(db)
        .await?;
    } else if is_new {
        // No text was sent: RECEIVED or PROCESSING (0, 1) becomes DEFERRED (2) without an owner, so that the backlog
        // handles it. The claim by `accept` does not count as an attempt. A stored message stays as it is.
        sqlx::query(
            "UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = $1 AND state IN (0, 1)",
        )
        .bind(id)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Stores a message as answered, so that no handler runs for it, unless it is already stored.
pub(super) async fn backfill_answered(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
    records_events: bool,
) -> Result<(), CallError> {
    if find_id(db, inbound).await?.is_some() {
        return Ok(());
    }
    accept(db, me, inbound, records_events).await?;
    // To ANSWERED (3), only from RECEIVED or PROCESSING (0, 1): a message that `accept` queued or claimed. A consent
    // keyword or an opted-out user's message is answered already.
    sqlx::query(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = $3 \
         WHERE sid = $1 AND account = $2 AND state IN (0, 1)",
    )
    .bind(packing::sid_bytes(inbound.sid.as_str()))
    .bind(packing::sid_bytes(inbound.account.as_str()))
    .bind(states::ANSWERED_BEFORE)
    .execute(db)
    .await?;
    Ok(())
}
