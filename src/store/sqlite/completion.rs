//! State changes that are committed with a reply, for both ways to reply.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::database::ready;
use super::{conversations, handoff};
use crate::store::error::StoreError;
use crate::store::journal::{Claim, Completion, QuestionChange};
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::events;
use crate::store::states;

/// Saves the state changes that are committed with a reply. `conversation` comes from the message's row and not from
/// its claim, because the conversation may have been merged into another one since.
pub(super) fn save_completion(
    db: &Connection,
    me: i64,
    conversation: i64,
    completion: &Completion,
    now: Timestamp,
) -> Result<(), StoreError> {
    conversations::change_dialogue(db, conversation, completion.dialogue.as_ref(), now)?;
    handoff::change_handoff(db, conversation, completion.handoff.as_ref())?;
    change_question(db, conversation, completion.question.as_ref(), now)?;
    for id in &completion.merged {
        // RECEIVED (0) becomes ANSWERED (3) with the empty response, and DEFERRED (2) becomes DONE (4) without replies.
        // The conditions of `queued_behind` are repeated, because a message may have been claimed or decided since.
        db.prepare_cached(
            "UPDATE inbound SET state = CASE WHEN state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = ?2, claimed_at = ?3 \
             WHERE id = ?1 AND conversation = ?4 AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?5)))",
        )?
        .execute(params![id, states::MERGED, now.as_microsecond(), conversation, me])?;
    }
    Ok(())
}

/// Records the event of a completion that is saved, if events are recorded.
pub(super) fn record_completion(
    db: &Connection,
    claim: Claim,
    conversation: i64,
    completion: &Completion,
    now: Timestamp,
    records_events: bool,
) -> Result<(), StoreError> {
    let mut db = db;
    let mut db = RecordingDatabase::new(&mut db, records_events);
    let change = completion.handoff.as_ref();
    ready(events::record_completion(
        &mut db,
        claim.id,
        conversation,
        change,
        now,
    ))
}

/// Asks a question, which replaces the one before, or ends one.
fn change_question(
    db: &Connection,
    conversation: i64,
    change: Option<&QuestionChange>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some((id, asked)) = change.map(QuestionChange::columns) else {
        return Ok(());
    };
    match asked {
        Some((data, expires_at)) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO question (conversation, id, data, expires_at, asked_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![conversation, id, data, expires_at, now.as_microsecond()])?,
        // By ID: a question that was asked since stays open.
        None => db
            .prepare_cached("DELETE FROM question WHERE conversation = ?1 AND id = ?2")?
            .execute(params![conversation, id])?,
    };
    Ok(())
}
