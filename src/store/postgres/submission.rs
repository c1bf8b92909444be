//! What is sent first, in PostgreSQL.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::Trouble;
use super::outbox::{self, Columns};
use super::text::pack;
use crate::address::Address;
use crate::sid::MessagingServiceSid;
use crate::store::rows;
use crate::store::{SendKey, Standing, Submission, Submitted};

pub(super) async fn submit(
    db: &mut PgConnection,
    submission: &Submission,
    now: Timestamp,
) -> Result<Submitted, Trouble> {
    if let Some(key) = &submission.key
        && let Some(id) = keyed(db, key).await?
    {
        return Ok(Submitted::Known(id));
    }
    let message = &submission.message;
    let (us, user) = (&message.us, &message.user);
    let standing = standing(db, us, message.service, user, submission.due).await?;
    if let Some(refusal) = submission.refusal(standing) {
        return Ok(Submitted::Refused(refusal));
    }
    let columns = Columns::of(std::slice::from_ref(message));
    let id = outbox::insert(db, &columns, now).await?[0];
    if let Some(key) = &submission.key {
        let mine = sqlx::query(
            "INSERT INTO send_key (key, reply, at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key.as_bytes())
        .bind(id)
        .bind(now.as_microsecond())
        .execute(&mut *db)
        .await?;
        // Somebody else was first, and has committed: from the beginning, which finds that one.
        if mine.rows_affected() == 0 {
            return Err(Trouble::Again);
        }
    }
    // Last, since it makes everybody else of this sender wait.
    if !submission.pace.is_zero() {
        let slot: i64 = sqlx::query_scalar(
            "INSERT INTO send_pace AS p (us, free_at) VALUES ($1, $2::bigint + $3::bigint) \
             ON CONFLICT (us) DO UPDATE SET free_at = greatest(p.free_at, $2) + $3 RETURNING free_at - $3",
        )
        .bind(pack(us.as_str()))
        .bind(now.as_microsecond())
        .bind(submission.pace_micros())
        .fetch_one(&mut *db)
        .await?;
        sqlx::query("UPDATE reply SET not_before = $2, due = $2 WHERE id = $1")
            .bind(id)
            .bind(slot)
            .execute(db)
            .await?;
    }
    Ok(Submitted::New(id))
}

pub(super) async fn keyed(db: &mut PgConnection, key: &SendKey) -> Result<Option<i64>, Trouble> {
    let found = sqlx::query_scalar("SELECT reply FROM send_key WHERE key = $1")
        .bind(key.as_bytes())
        .fetch_optional(db)
        .await?;
    Ok(found)
}

pub(super) async fn standing(
    db: &mut PgConnection,
    us: &Address,
    service: Option<MessagingServiceSid>,
    user: &Address,
    at: Timestamp,
) -> Result<Standing, Trouble> {
    let (last_inbound, opted_out, opted_in): (Option<i64>, bool, bool) = sqlx::query_as(
        "WITH person (address) AS (SELECT $2::text UNION SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.us = $1::text AND a.address = $2) \
         SELECT (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.us = $1 AND a.address = $2), \
         EXISTS (SELECT 1 FROM consent c JOIN person p ON p.address = c.address \
           WHERE c.opted_out IS NOT NULL AND (c.scope = $1 OR c.scope = $3 OR $1 = $3)), \
         EXISTS (SELECT 1 FROM consent c JOIN person p ON p.address = c.address \
           WHERE c.opted_in IS NOT NULL AND (c.scope = $1 OR c.scope = $3))",
    )
    .bind(pack(us.as_str()))
    .bind(pack(user.as_str()))
    .bind(service.as_ref().map(MessagingServiceSid::as_str))
    .fetch_one(db)
    .await?;
    Ok(Standing {
        opted_out,
        opted_in,
        window_open: rows::window(user, last_inbound, at)?.is_some(),
    })
}
