//! Submission of outbound messages in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox;
use crate::address::Address;
use crate::sid::MessagingServiceSid;
use crate::store::decisions;
use crate::store::error::StoreError;
use crate::store::submission::{IdempotencyKey, SendEligibility, Submission, SubmitOutcome};

pub(super) fn submit(
    db: &Connection,
    submission: &Submission,
    now: Timestamp,
) -> Result<SubmitOutcome, StoreError> {
    // Before the check of consent: the first submission decides, whatever a later one with its key contains. The write
    // lock makes two concurrent submissions of one key sequential.
    if let Some(key) = &submission.key
        && let Some(id) = find_by_key(db, key)?
    {
        return Ok(SubmitOutcome::Duplicate(id));
    }
    let message = &submission.message;
    let eligibility = eligibility(
        db,
        &message.sender,
        message.service,
        &message.user,
        submission.due,
    )?;
    // Returns before any write, so the key stays free.
    if let Some(rejection) = submission.rejection(eligibility) {
        return Ok(SubmitOutcome::Ineligible(rejection));
    }
    let ids = outbox::insert(db, None, std::slice::from_ref(message), now)?;
    let id = ids[0];
    if !submission.min_interval.is_zero() {
        // `free_at` is the earliest send time of the sender's next message. The message gets the current one, or now if
        // that has passed, so unused time does not allow a burst. RETURNING sees the new value, one interval later.
        let send_time: i64 = db
            .prepare_cached(
                "INSERT INTO send_rate (sender, free_at) VALUES (?1, ?2 + ?3) \
                 ON CONFLICT (sender) DO UPDATE SET free_at = max(free_at, ?2) + ?3 RETURNING free_at - ?3",
            )?
            .query_row(
                params![
                    message.sender.as_str(),
                    now.as_microsecond(),
                    submission.min_interval_micros()
                ],
                |row| row.get(0),
            )?;
        db.prepare_cached("UPDATE outbound SET not_before = ?2, due = ?2 WHERE id = ?1")?
            .execute([id, send_time])?;
    }
    if let Some(key) = &submission.key {
        // Without ON CONFLICT: the key was free under the write lock, which this transaction still has.
        db.prepare_cached("INSERT INTO idempotency_key (key, outbound, at) VALUES (?1, ?2, ?3)")?
            .execute(params![key.as_bytes(), id, now.as_microsecond()])?;
    }
    Ok(SubmitOutcome::Queued(id))
}

pub(super) fn find_by_key(
    db: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<i64>, StoreError> {
    let found = db
        .prepare_cached("SELECT outbound FROM idempotency_key WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Returns consent and window of a user under all addresses of the conversation with the sender.
pub(super) fn eligibility(
    db: &Connection,
    sender: &Address,
    service: Option<MessagingServiceSid>,
    user: &Address,
    at: Timestamp,
) -> Result<SendEligibility, StoreError> {
    let service = service.as_ref().map(MessagingServiceSid::as_str);
    // An opt-out counts in the scope of the sender and of the service. If the service chooses the sender (`?1 = ?3`),
    // an opt-out from any sender counts, because any of them may be chosen.
    let mut statement = db.prepare_cached(
        "WITH user_address (address) AS (SELECT ?2 UNION SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.sender = ?1 AND a.address = ?2) \
         SELECT (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = ?1 AND a.address = ?2), \
         EXISTS (SELECT 1 FROM consent c JOIN user_address u ON u.address = c.address \
           WHERE c.opted_out IS NOT NULL AND (c.scope = ?1 OR c.scope = ?3 OR ?1 = ?3)), \
         EXISTS (SELECT 1 FROM consent c JOIN user_address u ON u.address = c.address \
           WHERE c.opted_in IS NOT NULL AND (c.scope = ?1 OR c.scope = ?3))",
    )?;
    let (last_inbound, opted_out, opted_in) = statement
        .query_row(params![sender.as_str(), user.as_str(), service], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(SendEligibility {
        opted_out,
        opted_in,
        window_open: decisions::window(user, last_inbound, at)?.is_some(),
    })
}
