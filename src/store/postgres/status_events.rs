//! Status callbacks in PostgreSQL.

use sqlx::PgConnection;

use super::conversations;
use super::error::CallError;
use super::text::pack;
use crate::store::conversations::ConsentRecord;
use crate::store::outbox::{StatusEffect, StatusEvent};
use crate::store::{decisions, outbound_message, packing, states};

/// Opts out a user that Twilio does not deliver to.
pub(super) async fn record_rejection(
    db: &mut PgConnection,
    record: &ConsentRecord,
) -> Result<(), CallError> {
    // Each further message would be rejected as well, and would add a line to the ledger.
    if conversations::has_opted_out(db, &record.user, &record.scope).await? {
        return Ok(());
    }
    conversations::record_consent(db, record).await
}

/// Raises a message's status to `status`, which is escaped for storage. Returns true if it changed.
// Callbacks arrive out of order and more than once. `rank < $3` makes each update idempotent, and
// the status never falls.
pub(super) async fn raise_status(
    db: &mut PgConnection,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<i64>,
) -> Result<bool, CallError> {
    let changed = sqlx::query(
        "UPDATE outbound SET status = $2, rank = $3, error_code = coalesce($4, error_code) WHERE id = $1 AND rank < $3",
    )
    .bind(id)
    .bind(status)
    .bind(rank)
    .bind(code)
    .execute(db)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Applies a status callback. The caller's transaction has the advisory lock on its SID.
pub(super) async fn apply_status(
    db: &mut PgConnection,
    event: &StatusEvent,
) -> Result<StatusEffect, CallError> {
    let (account, sid) = (
        packing::sid_bytes(event.account.as_str()),
        packing::sid_bytes(event.sid.as_str()),
    );
    // Independent of the message: the opt-out counts even if the outbox does not know the SID.
    if let Some(record) = decisions::opt_out_of_event(event) {
        record_rejection(db, &record).await?;
    }
    let mut found: Option<i64> =
        sqlx::query_scalar("SELECT id FROM outbound WHERE sid = $1 AND account = $2")
            .bind(&sid)
            .bind(&account)
            .fetch_optional(&mut *db)
            .await?;
    if found.is_none()
        && let Some((id, created_at)) = event
            .outbound
            .as_deref()
            .and_then(outbound_message::parse_name)
    {
        // The call's response was lost, or has not been recorded yet. The callback proves that Twilio processed the
        // call, so the message becomes SENT (4), also if its result was unknown. A SID that is known already stays.
        // `created_at` excludes a callback for another database.
        found = sqlx::query_scalar(
            "UPDATE outbound SET sid = $4, state = 4, owner = NULL, reason = NULL \
             WHERE id = $1 AND created_at = $2 AND account = $3 AND sid IS NULL RETURNING id",
        )
        .bind(id)
        .bind(created_at)
        .bind(&account)
        .bind(&sid)
        .fetch_optional(&mut *db)
        .await?;
    }
    let rank = states::status_rank(&event.status);
    let status = pack(event.status.as_str());
    let code = event.error_code.map(|code| i64::from(code.0));
    if let Some(id) = found {
        let changed = raise_status(db, id, &status, rank, code).await?;
        return Ok(if changed {
            StatusEffect::Applied
        } else {
            StatusEffect::Stale
        });
    }
    // Kept for the case that the call's response is recorded later: `outbox::record_outcome` applies and deletes the
    // row. ON CONFLICT: of several events the one with the highest rank stays.
    sqlx::query(
        "INSERT INTO unmatched_status AS n (sid, account, status, rank, error_code, at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (sid, account) DO UPDATE SET status = excluded.status, rank = excluded.rank, \
         error_code = coalesce(excluded.error_code, n.error_code) WHERE excluded.rank > n.rank",
    )
    .bind(&sid)
    .bind(&account)
    .bind(&status)
    .bind(rank)
    .bind(code)
    .bind(event.at.as_microsecond())
    .execute(db)
    .await?;
    Ok(StatusEffect::Unmatched)
}
