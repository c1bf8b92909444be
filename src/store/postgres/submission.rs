//! Submission of outbound messages in PostgreSQL.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::CallError;
use super::new_outbound::Columns;
use super::outbox;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::shared::submission::{
    ask_question, assign_send_times, record_key, settled_outcome,
};
use crate::store::submission::{Submission, SubmitOutcome};

/// Queues a message, if its idempotency key is free and its user may receive it.
pub(super) async fn submit(
    db: &mut PgConnection,
    submission: &Submission,
    now: Timestamp,
) -> Result<SubmitOutcome, CallError> {
    if let Some(outcome) = settled_outcome(db, submission).await? {
        return Ok(outcome);
    }
    // The message before its key, which refers to its id. A rollback removes both.
    let columns = Columns::of(&submission.parts());
    let ids = outbox::insert(db, &columns, now).await?;
    let Some(id) = ids.last().copied() else {
        return Err(StoreError::new(StoreErrorKind::Internal).into());
    };
    // The key belongs to a concurrent submission, which has committed. Roll back the message; the next attempt finds the
    // other one as a duplicate.
    if !record_key(db, submission, id, now).await? {
        return Err(CallError::Conflict);
    }
    ask_question(db, submission, now).await?;
    assign_send_times(db, submission, &ids, now).await?;
    Ok(SubmitOutcome::Queued(id))
}
