//! Status callbacks in SQLite.

use rusqlite::{Connection, OptionalExtension, params};

use super::conversations;
use crate::store::conversations::ConsentRecord;
use crate::store::error::StoreError;
use crate::store::outbox::{StatusEffect, StatusEvent};
use crate::store::{decisions, outbound_message, packing, states};

/// Records the opt-out of a user to whom Twilio does not deliver.
pub(super) fn record_rejection(db: &Connection, record: &ConsentRecord) -> Result<(), StoreError> {
    let (user, scope) = (&record.user, &record.scope);
    // Twilio reports the error for every message to the user. The ledger gets one record.
    if conversations::has_opted_out(db, std::slice::from_ref(user), std::slice::from_ref(scope))? {
        return Ok(());
    }
    conversations::record_consent(db, record)
}

/// Raises the status of a message. Returns false if the message already has this rank or a higher one.
pub(super) fn raise_status(
    db: &Connection,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<u32>,
) -> Result<bool, StoreError> {
    // Callbacks arrive in any order and more than once. With `rank < ?3` every order ends in the same state.
    let changed = db
        .prepare_cached(
            "UPDATE outbound SET status = ?2, rank = ?3, error_code = coalesce(?4, error_code) WHERE id = ?1 AND rank < ?3",
        )?
        .execute(params![id, status, rank, code])?;
    Ok(changed > 0)
}

/// Applies a status event.
pub(super) fn apply_status(
    db: &Connection,
    event: &StatusEvent,
) -> Result<StatusEffect, StoreError> {
    let (account, sid) = (
        packing::sid_bytes(event.account.as_str()),
        packing::sid_bytes(event.sid.as_str()),
    );
    // Independent of the message: the opt-out counts even if the outbox does not know the SID.
    if let Some(record) = decisions::opt_out_of_event(event) {
        record_rejection(db, &record)?;
    }
    let code = event.error_code.map(|code| code.0);
    let mut found: Option<i64> = db
        .prepare_cached("SELECT id FROM outbound WHERE sid = ?1 AND account = ?2")?
        .query_row(params![sid, account], |row| row.get(0))
        .optional()?;
    if found.is_none()
        && let Some((id, created_at)) = event
            .outbound
            .as_deref()
            .and_then(outbound_message::parse_name)
    {
        // The callback's URL names the message, which proves that Twilio has accepted it, even if the REST call has not
        // returned or broke off: it becomes SENT (4). The time and the account keep a callback from matching a message
        // of another database or account, and a SID that is known already stays.
        found = db
            .prepare_cached(
                "UPDATE outbound SET sid = ?4, state = 4, owner = NULL, reason = NULL \
                 WHERE id = ?1 AND created_at = ?2 AND account = ?3 AND sid IS NULL RETURNING id",
            )?
            .query_row(params![id, created_at, account, sid], |row| row.get(0))
            .optional()?;
    }
    let rank = states::status_rank(&event.status);
    let status = event.status.as_str();
    if let Some(id) = found {
        let changed = raise_status(db, id, status, rank, code)?;
        return Ok(if changed {
            StatusEffect::Applied
        } else {
            StatusEffect::Stale
        });
    }
    // The REST call may end after its first callback. `record_outcome` applies the event then. ON CONFLICT: of several
    // events the one with the highest rank stays.
    db.prepare_cached(
        "INSERT INTO unmatched_status (sid, account, status, rank, error_code, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (sid, account) DO UPDATE SET status = excluded.status, rank = excluded.rank, \
         error_code = coalesce(excluded.error_code, error_code) WHERE excluded.rank > rank",
    )?
    .execute(params![sid, account, status, rank, code, event.at.as_microsecond()])?;
    Ok(StatusEffect::Unmatched)
}
