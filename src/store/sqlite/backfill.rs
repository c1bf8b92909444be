//! Messages that were received while the store was unavailable, or whose journal was lost.

use rusqlite::{Connection, params};

use super::accept::{MessageKey, accept};
use crate::store::error::StoreError;
use crate::store::new_inbound::NewInbound;
use crate::store::states;

/// Records a message that was received during a store outage, with the fallback reply that was sent, if any.
pub(super) fn backfill(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    twiml: Option<&str>,
    records_events: bool,
) -> Result<(), StoreError> {
    let key = MessageKey::of(inbound);
    let is_new = key.find_id(db)?.is_none();
    if is_new {
        // Opens the window and applies a keyword, as for any message. The claim that it makes is undone below.
        accept(db, me, inbound, records_events)?;
    }
    let Some(id) = key.find_id(db)? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The user has this reply, so it becomes the response: open (0, 1, 2) and FAILED (5) become ANSWERED (3), even
        // a deferred message whose reply is not queued yet. A running handler loses its claim. Responses that are saved
        // or queued already stay.
        db.prepare_cached("UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1 AND state IN (0, 1, 2, 5)")?
            .execute(params![id, twiml])?;
    } else if is_new {
        // No reply was sent: RECEIVED or PROCESSING (0, 1) becomes DEFERRED (2), and the message joins the backlog, as
        // if no attempt had begun. A message that is a keyword is answered already.
        db.prepare_cached("UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = ?1 AND state IN (0, 1)")?
            .execute([id])?;
    }
    Ok(())
}

/// Records a message as answered with the empty response, unless it is stored already.
pub(super) fn backfill_answered(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    records_events: bool,
) -> Result<(), StoreError> {
    let key = MessageKey::of(inbound);
    if key.find_id(db)?.is_some() {
        return Ok(());
    }
    // Opens the window and applies a keyword.
    accept(db, me, inbound, records_events)?;
    // RECEIVED or PROCESSING (0, 1) becomes ANSWERED (3). A message that is a keyword is answered already, and stays as
    // it is.
    db.execute(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = ?3 \
         WHERE sid = ?1 AND account = ?2 AND state IN (0, 1)",
        params![key.sid, key.account, states::ANSWERED_BEFORE],
    )?;
    Ok(())
}
