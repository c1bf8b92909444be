//! What is told of messages after they were sent, in SQLite.

use rusqlite::{Connection, OptionalExtension, params};

use super::conversations;
use crate::sid::MessagingServiceSid;
use crate::store::{ConsentRecord, News, NewsEffect, StoreError, outbox, rows};

/// Opts out whom Twilio will not deliver to.
pub(super) fn refused(db: &Connection, record: &ConsentRecord) -> Result<(), StoreError> {
    let (user, scope) = (&record.user, &record.scope);
    if conversations::opted_out(db, std::slice::from_ref(user), std::slice::from_ref(scope))? {
        return Ok(());
    }
    conversations::record_consent(db, record)
}

/// Moves a message's status upwards. Returns whether it moved.
pub(super) fn raise(
    db: &Connection,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<u32>,
) -> Result<bool, StoreError> {
    let moved = db
        .prepare_cached(
            "UPDATE reply SET status = ?2, rank = ?3, error_code = coalesce(?4, error_code) WHERE id = ?1 AND rank < ?3",
        )?
        .execute(params![id, status, rank, code])?;
    Ok(moved > 0)
}

pub(super) fn take(db: &Connection, news: &News) -> Result<NewsEffect, StoreError> {
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
        refused(db, &record)?;
    }
    let mut found: Option<i64> = db
        .prepare_cached("SELECT id FROM reply WHERE sid = ?1 AND account = ?2")?
        .query_row(params![sid, account], |row| row.get(0))
        .optional()?;
    if found.is_none()
        && let Some((id, created_at)) = news.reply.as_deref().and_then(outbox::parse_name)
    {
        // Proof that the call was processed, whoever has not heard of it.
        found = db
            .prepare_cached(
                "UPDATE reply SET sid = ?4, state = 4, owner = NULL, reason = NULL \
                 WHERE id = ?1 AND created_at = ?2 AND account = ?3 AND sid IS NULL RETURNING id",
            )?
            .query_row(params![id, created_at, account, sid], |row| row.get(0))
            .optional()?;
    }
    let rank = rows::rank(&news.status);
    let status = news.status.as_str();
    if let Some(id) = found {
        let moved = raise(db, id, status, rank, code)?;
        return Ok(if moved {
            NewsEffect::Moved
        } else {
            NewsEffect::Old
        });
    }
    db.prepare_cached(
        "INSERT INTO news (sid, account, status, rank, error_code, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (sid, account) DO UPDATE SET status = excluded.status, rank = excluded.rank, \
         error_code = coalesce(excluded.error_code, error_code) WHERE excluded.rank > rank",
    )?
    .execute(params![sid, account, status, rank, code, news.at.as_microsecond()])?;
    Ok(NewsEffect::Unknown)
}
