//! Submission of outbound messages in PostgreSQL.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::CallError;
use super::new_outbound::Columns;
use super::outbox;
use super::text::pack;
use crate::address::Address;
use crate::sid::MessagingServiceSid;
use crate::store::decisions;
use crate::store::submission::{IdempotencyKey, SendEligibility, Submission, SubmitOutcome};

/// Queues a message, if its idempotency key is free and its user may receive it.
pub(super) async fn submit(
    db: &mut PgConnection,
    submission: &Submission,
    now: Timestamp,
) -> Result<SubmitOutcome, CallError> {
    // Before the check of consent: the first submission decides, whatever a later one with its key contains.
    if let Some(key) = &submission.key
        && let Some(id) = find_by_key(db, key).await?
    {
        return Ok(SubmitOutcome::Duplicate(id));
    }
    let message = &submission.message;
    let (sender, user) = (&message.sender, &message.user);
    let eligibility = eligibility(db, sender, message.service, user, submission.due).await?;
    // Returns before any write, so the key stays free.
    if let Some(rejection) = submission.rejection(eligibility) {
        return Ok(SubmitOutcome::Ineligible(rejection));
    }
    // The message before its key, which refers to its id. A rollback removes both.
    let columns = Columns::of(std::slice::from_ref(message));
    let id = outbox::insert(db, &columns, now).await?[0];
    if let Some(key) = &submission.key {
        let inserted = sqlx::query(
            "INSERT INTO idempotency_key (key, outbound, at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key.as_bytes())
        .bind(id)
        .bind(now.as_microsecond())
        .execute(&mut *db)
        .await?;
        // The INSERT waited for a concurrent submission with this key, which has committed. Roll back the message; the
        // next attempt finds the other one as a duplicate.
        if inserted.rows_affected() == 0 {
            return Err(CallError::Conflict);
        }
    }
    // The rate limit comes last. Its row stays locked until the commit, and every other submission for this sender
    // waits for it.
    if !submission.min_interval.is_zero() {
        // One statement reads and advances the time, so that no two messages get the same one. `greatest`: unused time
        // does not allow a burst.
        let send_at: i64 = sqlx::query_scalar(
            "INSERT INTO send_rate AS p (sender, free_at) VALUES ($1, $2::bigint + $3::bigint) \
             ON CONFLICT (sender) DO UPDATE SET free_at = greatest(p.free_at, $2) + $3 RETURNING free_at - $3",
        )
        .bind(pack(sender.as_str()))
        .bind(now.as_microsecond())
        .bind(submission.min_interval_micros())
        .fetch_one(&mut *db)
        .await?;
        sqlx::query("UPDATE outbound SET not_before = $2, due = $2 WHERE id = $1")
            .bind(id)
            .bind(send_at)
            .execute(db)
            .await?;
    }
    Ok(SubmitOutcome::Queued(id))
}

/// Id of the message that was submitted with this key.
pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: &IdempotencyKey,
) -> Result<Option<i64>, CallError> {
    let found = sqlx::query_scalar("SELECT outbound FROM idempotency_key WHERE key = $1")
        .bind(key.as_bytes())
        .fetch_optional(db)
        .await?;
    Ok(found)
}

/// Reads which messages a user may receive from a sender, or from a service if `sender` is its SID.
pub(super) async fn eligibility(
    db: &mut PgConnection,
    sender: &Address,
    service: Option<MessagingServiceSid>,
    user: &Address,
    at: Timestamp,
) -> Result<SendEligibility, CallError> {
    // `$1 = $3`: the service chooses the sender, so an opt-out from any sender counts. An opt-in counts
    // for its scope only.
    let (last_inbound, opted_out, opted_in): (Option<i64>, bool, bool) = sqlx::query_as(
        "WITH user_address (address) AS (SELECT $2::text UNION SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.sender = $1::text AND a.address = $2) \
         SELECT (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = $1 AND a.address = $2), \
         EXISTS (SELECT 1 FROM consent c JOIN user_address u ON u.address = c.address \
           WHERE c.opted_out IS NOT NULL AND (c.scope = $1 OR c.scope = $3 OR $1 = $3)), \
         EXISTS (SELECT 1 FROM consent c JOIN user_address u ON u.address = c.address \
           WHERE c.opted_in IS NOT NULL AND (c.scope = $1 OR c.scope = $3))",
    )
    .bind(pack(sender.as_str()))
    .bind(pack(user.as_str()))
    .bind(service.as_ref().map(MessagingServiceSid::as_str))
    .fetch_one(db)
    .await?;
    Ok(SendEligibility {
        opted_out,
        opted_in,
        window_open: decisions::window(user, last_inbound, at)?.is_some(),
    })
}
