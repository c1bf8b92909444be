//! Status callbacks in PostgreSQL.

use sqlx::PgConnection;

use super::conversations;
use super::error::Trouble;
use super::text::pack;
use crate::sid::MessagingServiceSid;
use crate::store::{ConsentRecord, StatusEffect, StatusEvent, outbox, rows};

/// Opts out a user that Twilio does not deliver to.
pub(super) async fn rejected(db: &mut PgConnection, record: &ConsentRecord) -> Result<(), Trouble> {
    // Each further message would be rejected as well, and would add a line to the ledger.
    if conversations::opted_out(db, &record.user, &record.scope).await? {
        return Ok(());
    }
    conversations::record_consent(db, record).await
}

/// Raises a message's status to `status`, which is escaped for storage. Returns whether it changed.
// Callbacks arrive out of order and more than once. `rank < $3` makes each update idempotent, and
// the status never falls.
pub(super) async fn raise(
    db: &mut PgConnection,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<i64>,
) -> Result<bool, Trouble> {
    let moved = sqlx::query(
        "UPDATE outbound SET status = $2, rank = $3, error_code = coalesce($4, error_code) WHERE id = $1 AND rank < $3",
    )
    .bind(id)
    .bind(status)
    .bind(rank)
    .bind(code)
    .execute(db)
    .await?;
    Ok(moved.rows_affected() > 0)
}

/// Applies a status callback. The caller's transaction has the advisory lock on its SID.
pub(super) async fn take(
    db: &mut PgConnection,
    news: &StatusEvent,
) -> Result<StatusEffect, Trouble> {
    let (account, sid) = (
        rows::sid_bytes(news.account.as_str()),
        rows::sid_bytes(news.sid.as_str()),
    );
    let code = news.error_code.map(|code| code.0);
    let service = news.service.as_ref().map(MessagingServiceSid::as_str);
    if let (Some(us), Some(user)) = (&news.sender, &news.user)
        && let Some(scope) = rows::rejected_scope(code, us.as_str(), service)
    {
        let record = ConsentRecord::refusal(scope, user.clone(), Some(news.sid), news.at);
        rejected(db, &record).await?;
    }
    let mut found: Option<i64> =
        sqlx::query_scalar("SELECT id FROM outbound WHERE sid = $1 AND account = $2")
            .bind(&sid)
            .bind(&account)
            .fetch_optional(&mut *db)
            .await?;
    if found.is_none()
        && let Some((id, created_at)) = news.outbound.as_deref().and_then(outbox::parse_name)
    {
        // The call's response was lost, or has not been recorded yet. The callback proves that Twilio
        // processed the call, so the message is sent, also if its result was unknown. `created_at` excludes a
        // callback for another database.
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
    let rank = rows::rank(&news.status);
    let status = pack(news.status.as_str());
    let code = code.map(i64::from);
    if let Some(id) = found {
        let moved = raise(db, id, &status, rank, code).await?;
        return Ok(if moved {
            StatusEffect::Applied
        } else {
            StatusEffect::Stale
        });
    }
    // Kept for the case that the call's response is recorded later: `outbox::settle` applies and deletes the row.
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
    .bind(news.at.as_microsecond())
    .execute(db)
    .await?;
    Ok(StatusEffect::Unmatched)
}
