//! Submission of outbound messages: all but the insertion of the message.

use jiff::Timestamp;
use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::conversation_members;
use super::database::{Database, params};
use crate::address::Address;
use crate::sid::MessagingServiceSid;
use crate::store::decisions;
use crate::store::identity::Member;
use crate::store::journal::QuestionChange;
use crate::store::submission::{
    IdempotencyKey, KeyedMessage, MessageFingerprint, SendEligibility, Submission, SubmitOutcome,
};

/// Returns the outcome of a submission that must not be queued: its idempotency key is known, or its user may not
/// receive it.
pub(in crate::store) async fn settled_outcome<D: Database>(
    db: &mut D,
    submission: &Submission,
) -> Result<Option<SubmitOutcome>, D::Error> {
    // Before the check of consent: the first submission decides, whatever a later one with its key contains. In SQLite
    // the write lock makes two concurrent submissions of one key sequential.
    if let Some(key) = &submission.key
        && let Some(keyed) = find_by_key(db, key).await?
    {
        return Ok(Some(SubmitOutcome::Duplicate(keyed.id)));
    }
    let message = &submission.message;
    let (sender, user) = (&message.sender, &message.user);
    let eligibility = eligibility(db, sender, message.service, user, submission.due).await?;
    // Before any write, so the key stays free.
    let rejection = submission.rejection(eligibility);
    Ok(rejection.map(SubmitOutcome::Ineligible))
}

/// Records the idempotency key of a queued message, which refers to its ID. Returns false if it is in use.
// In PostgreSQL, the INSERT waits for a concurrent submission with this key.
pub(in crate::store) async fn record_key<D: Database>(
    db: &mut D,
    submission: &Submission,
    id: i64,
    now: Timestamp,
) -> Result<bool, D::Error> {
    let (Some(key), Some(MessageFingerprint(fingerprint))) =
        (&submission.key, submission.fingerprint())
    else {
        return Ok(true);
    };
    let inserted = db
        .execute(
            "INSERT INTO idempotency_key (key, outbound, at, fingerprint) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING",
            params![key.as_bytes(), id, now, &fingerprint[..]],
        )
        .await?;
    Ok(inserted > 0)
}

/// Asks the question of a queued message, which replaces the open one of its conversation.
// After the key and before the rate limit: the order in which all submissions lock these rows in PostgreSQL.
pub(in crate::store) async fn ask_question<D: Database>(
    db: &mut D,
    submission: &Submission,
    now: Timestamp,
) -> Result<(), D::Error> {
    let asked = submission.question.as_ref().map(QuestionChange::columns);
    let Some((id, Some((data, expires_at)))) = asked else {
        return Ok(());
    };
    let message = &submission.message;
    let member = Member::of(&message.user);
    let conversation =
        conversation_members::join_or_create(db, message.sender.as_str(), &[member], now).await?;
    db.execute(
        "INSERT INTO question (conversation, id, data, expires_at, asked_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (conversation) DO UPDATE SET id = excluded.id, data = excluded.data, \
         expires_at = excluded.expires_at, asked_at = excluded.asked_at, numbered = false",
        params![conversation, id.as_str(), data.as_str(), expires_at, now],
    )
    .await?;
    Ok(())
}

/// Gives the parts of a queued message the next send times of their sender.
// The rate limit comes last. In PostgreSQL its row stays locked until the commit, and every other submission for this
// sender waits for it.
pub(in crate::store) async fn assign_send_times<D: Database>(
    db: &mut D,
    submission: &Submission,
    ids: &[i64],
    now: Timestamp,
) -> Result<(), D::Error> {
    if submission.min_interval.is_zero() {
        return Ok(());
    }
    for id in ids {
        assign_next_send_time(db, submission, *id, now).await?;
    }
    Ok(())
}

async fn assign_next_send_time<D: Database>(
    db: &mut D,
    submission: &Submission,
    id: i64,
    now: Timestamp,
) -> Result<(), D::Error> {
    // `free_at` is the earliest send time of the sender's next message. The message gets the current one, or now if that
    // has passed, so unused time does not allow a burst. RETURNING sees the new value, one interval later. One statement
    // reads and advances the time, so that no two messages get the same one.
    let send_time = db
        .row(
            "INSERT INTO send_rate AS p (sender, free_at) VALUES ($1, $2 + $3) ON CONFLICT (sender) DO UPDATE \
             SET free_at = CASE WHEN p.free_at > $2 THEN p.free_at ELSE $2 END + $3 RETURNING free_at - $3",
            params![
                submission.message.sender.as_str(),
                now,
                submission.min_interval_micros(),
            ],
        )
        .await?;
    let send_time: i64 = send_time.unwrap_or_default().take(0)?;
    db.execute(
        "UPDATE outbound SET not_before = $2, due = $2 WHERE id = $1",
        params![id, send_time],
    )
    .await?;
    Ok(())
}

/// Returns the message that was submitted with this key.
pub(in crate::store) async fn find_by_key<D: Database>(
    db: &mut D,
    key: &IdempotencyKey,
) -> Result<Option<KeyedMessage>, D::Error> {
    let found = db
        .row(
            "SELECT outbound, fingerprint FROM idempotency_key WHERE key = $1",
            params![key.as_bytes()],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    Ok(Some(KeyedMessage {
        id: row.take(0)?,
        fingerprint: MessageFingerprint(row.take(1)?),
    }))
}

/// Returns consent and window of a user for messages of a sender, which may be the SID of a service.
pub(in crate::store) async fn eligibility<D: Database>(
    db: &mut D,
    sender: &Address,
    service: Option<MessagingServiceSid>,
    user: &Address,
    at: Timestamp,
) -> Result<SendEligibility, D::Error> {
    let key = AddressKey::of(user);
    // An opt-out counts in the scope of the sender and of the service, also of the service that the sender was last
    // seen in. If the service chooses the sender (`$1 = $3`),
    // an opt-out from any sender counts, because any of them may be chosen. An opt-in counts for its scope only.
    let found = db
        .row(
            "SELECT (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
               WHERE a.sender = $1 AND a.address_key = $2), \
             EXISTS (SELECT 1 FROM consent c WHERE c.consent_key = $4 AND c.suppressed IS NOT NULL \
               AND (c.scope = $1 OR c.scope = $3 OR $1 = $3 \
                 OR c.scope = (SELECT v.service FROM service_sender v WHERE v.sender = $1))), \
             EXISTS (SELECT 1 FROM consent c WHERE c.consent_key = $4 AND c.opted_in IS NOT NULL AND (c.scope = $1 OR c.scope = $3))",
            params![
                sender.as_str(),
                key.as_str(),
                service.as_ref().map(MessagingServiceSid::as_str),
                ConsentKey::from(&key).as_str(),
            ],
        )
        .await?;
    let mut row = found.unwrap_or_default();
    let last_inbound: Option<i64> = row.take(0)?;
    Ok(SendEligibility {
        opted_out: row.take(1)?,
        opted_in: row.take(2)?,
        window_open: decisions::window(user, last_inbound, at)?.is_some(),
    })
}
