//! What is told of messages after they were sent, in PostgreSQL.

use sqlx::PgConnection;

use super::conversations;
use super::error::Trouble;
use super::text::pack;
use crate::sid::MessagingServiceSid;
use crate::store::{ConsentRecord, News, NewsEffect, outbox, rows};

/// Opts out whom Twilio will not deliver to.
pub(super) async fn refused(db: &mut PgConnection, record: &ConsentRecord) -> Result<(), Trouble> {
    if conversations::opted_out(db, &record.user, &record.scope).await? {
        return Ok(());
    }
    conversations::record_consent(db, record).await
}

/// Moves a message's status upwards. `status` is as it is stored. Returns whether it moved.
pub(super) async fn raise(
    db: &mut PgConnection,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<i64>,
) -> Result<bool, Trouble> {
    let moved = sqlx::query(
        "UPDATE reply SET status = $2, rank = $3, error_code = coalesce($4, error_code) WHERE id = $1 AND rank < $3",
    )
    .bind(id)
    .bind(status)
    .bind(rank)
    .bind(code)
    .execute(db)
    .await?;
    Ok(moved.rows_affected() > 0)
}

pub(super) async fn take(db: &mut PgConnection, news: &News) -> Result<NewsEffect, Trouble> {
    let (account, sid) = (
        rows::sid_bytes(news.account.as_str()),
        rows::sid_bytes(news.sid.as_str()),
    );
    let code = news.error_code.map(|code| code.0);
    let service = news.service.as_ref().map(MessagingServiceSid::as_str);
    if let (Some(us), Some(user)) = (&news.us, &news.user)
        && let Some(scope) = rows::refused_scope(code, us.as_str(), service)
    {
        let record = ConsentRecord::refusal(scope, user.clone(), Some(news.sid), news.at);
        refused(db, &record).await?;
    }
    let mut found: Option<i64> =
        sqlx::query_scalar("SELECT id FROM reply WHERE sid = $1 AND account = $2")
            .bind(&sid)
            .bind(&account)
            .fetch_optional(&mut *db)
            .await?;
    if found.is_none()
        && let Some((id, created_at)) = news.reply.as_deref().and_then(outbox::parse_name)
    {
        // Proof that the call was processed, whoever has not heard of it.
        found = sqlx::query_scalar(
            "UPDATE reply SET sid = $4, state = 4, owner = NULL, reason = NULL \
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
            NewsEffect::Moved
        } else {
            NewsEffect::Old
        });
    }
    sqlx::query(
        "INSERT INTO news AS n (sid, account, status, rank, error_code, at) VALUES ($1, $2, $3, $4, $5, $6) \
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
    Ok(NewsEffect::Unknown)
}
