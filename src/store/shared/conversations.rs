//! Conversations and their dialogues.

use jiff::Timestamp;
use replyhook_core::address_key::AddressKey;

use super::database::{Database, params};
use crate::address::Address;
use crate::choice::{OpenQuestion, QuestionId};
use crate::store::conversations::{Conversation, Dialogue};
use crate::store::error::StoreError;
use crate::store::packing;

/// Returns the conversation of a sender and a user.
pub(in crate::store) async fn conversation<D: Database>(
    db: &mut D,
    sender: &Address,
    user: &Address,
) -> Result<Option<Conversation>, D::Error> {
    let found = db
        .row(
            "SELECT c.id, c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
             WHERE a.sender = $1 AND a.address_key = $2",
            params![sender.as_str(), AddressKey::of(user).as_str()],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    let last = packing::time(row.take(1)?)?;
    let conversation = Conversation::new(row.take(0)?, sender.clone(), user.clone(), Some(last));
    Ok(Some(conversation))
}

/// Returns the dialogue state of a conversation, unless it has expired.
pub(in crate::store) async fn dialogue<D: Database>(
    db: &mut D,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<Dialogue>, D::Error> {
    // An expired dialogue stays in the table until its conversation is deleted or it is replaced.
    let found = db
        .row(
            "SELECT data FROM dialogue WHERE conversation = $1 AND (expires_at IS NULL OR expires_at > $2)",
            params![conversation, now],
        )
        .await?;
    Ok(found.map(|mut row| row.take(0).map(Dialogue)).transpose()?)
}

/// Returns the open question of a conversation, unless it has expired.
pub(in crate::store) async fn open_question<D: Database>(
    db: &mut D,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<OpenQuestion>, D::Error> {
    // An expired question stays in the table until it is replaced, or its conversation is deleted.
    let found = db
        .row(
            "SELECT data, numbered FROM question WHERE conversation = $1 AND expires_at > $2",
            params![conversation, now],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    let data: String = row.take(0)?;
    let has_numbers = row.take(1)?;
    // A question that another version wrote and this one cannot read is over: its answers are ordinary texts.
    let question: Option<OpenQuestion> = serde_json::from_str(&data).ok();
    Ok(question.map(|question| OpenQuestion {
        has_numbers,
        ..question
    }))
}

/// Records that an open question is shown as a numbered text, or in the form that its channel has for it.
// By conversation, which is the key, and by ID: a question that was asked since is shown as it was asked.
pub(in crate::store) async fn set_question_numbered<D: Database>(
    db: &mut D,
    (sender, user): (&Address, &Address),
    id: &QuestionId,
    is_numbered: bool,
) -> Result<(), D::Error> {
    db.execute(
        "UPDATE question SET numbered = $4 WHERE id = $3 AND conversation IN (\
           SELECT conversation FROM conversation_address WHERE sender = $1 AND address_key = $2)",
        params![
            sender.as_str(),
            AddressKey::of(user).as_str(),
            id.as_str(),
            is_numbered
        ],
    )
    .await?;
    Ok(())
}

/// SQL condition: the two addresses of a row of `identity_link` have neither a conversation nor a consent.
// An RCS address shares the consent of its bare number.
macro_rules! unused_link {
    () => {
        "NOT EXISTS (\
           SELECT 1 FROM conversation_address n WHERE n.address_key IN (identity_link.a, identity_link.b)) AND NOT EXISTS (\
           SELECT 1 FROM consent c WHERE c.consent_key IN (identity_link.a, identity_link.b, \
             replace(identity_link.a, 'rcs:', ''), replace(identity_link.b, 'rcs:', '')))"
    };
}
pub(super) use unused_link;

/// Deletes conversations. In PostgreSQL the caller has locked them.
pub(in crate::store) async fn delete_conversations<D: Database>(
    db: &mut D,
    conversations: &[i64],
) -> Result<(), D::Error> {
    let rows = db
        .rows(
            "SELECT DISTINCT address_key FROM conversation_address WHERE conversation = ANY ($1)",
            params![conversations],
        )
        .await?;
    let keys: Result<Vec<String>, StoreError> =
        rows.into_iter().map(|mut row| row.take(0)).collect();
    let keys = keys?;
    for sql in [
        "DELETE FROM conversation_address WHERE conversation = ANY ($1)",
        "DELETE FROM dialogue WHERE conversation = ANY ($1)",
        "DELETE FROM question WHERE conversation = ANY ($1)",
        "DELETE FROM handoff WHERE conversation = ANY ($1)",
        "DELETE FROM conversation WHERE id = ANY ($1)",
    ] {
        db.execute(sql, params![conversations]).await?;
    }
    db.execute(
        concat!(
            "DELETE FROM identity_link WHERE (a = ANY ($1) OR b = ANY ($1)) AND ",
            unused_link!()
        ),
        params![&keys[..]],
    )
    .await?;
    Ok(())
}
