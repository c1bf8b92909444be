//! Claims of inbound messages in PostgreSQL.
//!
//! A transaction that claims a message first locks its conversation, in a statement of its own. Under READ COMMITTED
//! the following statements see everything committed before the lock was acquired. Until the commit no other
//! transaction can claim a message of the same conversation.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::CallError;
use super::reading::lock_and_read_state;
use crate::store::decisions::MessageState;
use crate::store::journal::{Claim, TurnStatus};

/// Claims a queued message, if it is its turn.
pub(super) async fn try_claim(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    now: Timestamp,
) -> Result<TurnStatus, CallError> {
    lock_conversation(db, id).await?;
    let message = lock_and_read_state(db, me, id).await?;
    match message.turn(me) {
        Some(turn) => Ok(turn),
        None => Ok(TurnStatus::Claimed(claim(db, me, &message, now).await?)),
    }
}

/// Claims a message for its next attempt. The caller has locked the conversation.
pub(super) async fn claim(
    db: &mut PgConnection,
    me: i64,
    message: &MessageState,
    now: Timestamp,
) -> Result<Claim, CallError> {
    let claim = message.next_claim(now);
    // To PROCESSING (1). `claims` increases, so that an `ACCEPT_USUAL` that waits for the lock detects that its
    // snapshot misses this claim.
    sqlx::query(
        "WITH counted AS (UPDATE conversation SET claims = claims + 1 WHERE id = $5) \
         UPDATE inbound SET state = 1, owner = $2, attempt = $3, claimed_at = $4 WHERE id = $1",
    )
    .bind(claim.id)
    .bind(me)
    .bind(i64::from(claim.attempt))
    .bind(now.as_microsecond())
    .bind(claim.conversation)
    .execute(db)
    .await?;
    Ok(claim)
}

/// Locks the conversation of a message.
///
/// First corrects the message's reference to a conversation that was merged into another, or restores a deleted one.
pub(super) async fn lock_conversation(db: &mut PgConnection, id: i64) -> Result<(), CallError> {
    // `FOR UPDATE OF c` locks the conversation only: it comes first in the lock order, and the message after it.
    let found: Option<(Option<i64>,)> = sqlx::query_as(
        "SELECT c.merged_into FROM inbound i JOIN conversation c ON c.id = i.conversation WHERE i.id = $1 FOR UPDATE OF c",
    )
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    match found {
        Some((None,)) => return Ok(()),
        Some((Some(target),)) => {
            // The target may have been merged or deleted before its lock was acquired. The next attempt
            // follows the new reference.
            let locked = sqlx::query(
                "SELECT id FROM conversation WHERE id = $1 AND merged_into IS NULL FOR UPDATE",
            )
            .bind(target)
            .fetch_optional(&mut *db)
            .await?;
            if locked.is_none() {
                return Err(CallError::Conflict);
            }
            sqlx::query("UPDATE inbound SET conversation = $2 WHERE id = $1")
                .bind(id)
                .bind(target)
                .execute(db)
                .await?;
        }
        None => {
            // Retention has deleted the conversation, and its message remains. Restore it under its id. If another
            // transaction does the same, the upsert waits for it and locks its row.
            sqlx::query(
                "INSERT INTO conversation (id, last_inbound) SELECT conversation, received_at FROM inbound WHERE id = $1 \
                 ON CONFLICT (id) DO UPDATE SET claims = conversation.claims + 1",
            )
            .bind(id)
            .execute(db)
            .await?;
        }
    }
    Ok(())
}

/// Releases the claims of this process that are older than `before` and not in `running`.
pub(super) async fn release_stale_claims(
    db: &mut PgConnection,
    me: i64,
    running: Vec<i64>,
    before: Timestamp,
) -> Result<u64, CallError> {
    // Open claims (below 3) whose response from the database was lost: the process owns them without knowing.
    // PROCESSING (1) becomes RECEIVED (0). `claimed_at` excludes a claim whose response is still on its way. As in
    // `release_claims`, this is not a crash.
    let released = sqlx::query(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
         WHERE state < 3 AND owner = $1 AND claimed_at < $2 AND NOT id = ANY ($3)",
    )
    .bind(me)
    .bind(before.as_microsecond())
    .bind(running)
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Releases all claims of this process.
pub(super) async fn release_claims(db: &mut PgConnection, me: i64) -> Result<(), CallError> {
    // Open messages (below 3). PROCESSING (1) becomes RECEIVED (0): `claim_backlog` does not count that as a crash.
    sqlx::query(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE state < 3 AND owner = $1",
    )
    .bind(me)
    .execute(db)
    .await?;
    Ok(())
}
