//! Submission of outbound messages in SQLite.

use jiff::Timestamp;
use rusqlite::Connection;

use super::database::ready;
use super::outbox;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::shared::submission::{
    ask_question, assign_send_times, record_key, settled_outcome,
};
use crate::store::submission::{Submission, SubmitOutcome};

/// Queues a message, if its idempotency key is free and its user may receive it.
pub(super) fn submit(
    mut db: &Connection,
    submission: &Submission,
    now: Timestamp,
) -> Result<SubmitOutcome, StoreError> {
    if let Some(outcome) = ready(settled_outcome(&mut db, submission))? {
        return Ok(outcome);
    }
    let ids = outbox::insert(db, None, &submission.parts(), now)?;
    let Some(id) = ids.last().copied() else {
        return Err(StoreError::new(StoreErrorKind::Internal));
    };
    // The key was free under the write lock, which this transaction still has.
    if !ready(record_key(&mut db, submission, id, now))? {
        return Err(StoreError::new(StoreErrorKind::Internal));
    }
    ready(ask_question(&mut db, submission, now))?;
    ready(assign_send_times(&mut db, submission, &ids, now))?;
    Ok(SubmitOutcome::Queued(id))
}
