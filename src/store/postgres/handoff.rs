//! Handoffs in PostgreSQL.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::CallError;
use super::text::unpack;
use crate::store::handoff::HandoffRow;
use crate::store::packing;

/// Returns the URL of a conversation's handoff, if one is active.
pub(super) async fn handoff_url(
    db: &mut PgConnection,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<String>, CallError> {
    let url: Option<String> =
        sqlx::query_scalar("SELECT url FROM handoff WHERE conversation = $1 AND until > $2")
            .bind(conversation)
            .bind(now.as_microsecond())
            .fetch_optional(db)
            .await?;
    Ok(url.map(unpack))
}

/// Ends the handoffs of a user, and returns their number. `sender` and `user` are escaped for storage.
pub(super) async fn end_handoff(
    db: &mut PgConnection,
    sender: Option<&str>,
    user: &str,
    now: Timestamp,
) -> Result<u64, CallError> {
    // An expired handoff is over already, so it is not counted.
    let ended = sqlx::query(
        "DELETE FROM handoff WHERE until > $3 AND conversation IN (\
           SELECT conversation FROM conversation_address WHERE address = $2 AND ($1::text IS NULL OR sender = $1))",
    )
    .bind(sender)
    .bind(user)
    .bind(now.as_microsecond())
    .execute(db)
    .await?;
    Ok(ended.rows_affected())
}

/// Lists active handoffs, those that end first before the others.
pub(super) async fn active_handoffs(
    db: &mut PgConnection,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<HandoffRow>, CallError> {
    let rows: Vec<(i64, String, String, String, i64)> = sqlx::query_as(
        "SELECT h.conversation, a.sender, a.address, h.url, h.until \
         FROM (SELECT conversation, url, until FROM handoff WHERE until > $1 ORDER BY until, conversation LIMIT $2) h \
         JOIN conversation_address a ON a.conversation = h.conversation \
         ORDER BY h.until, h.conversation, a.address",
    )
    .bind(now.as_microsecond())
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let mut found = Vec::new();
    for (conversation, sender, user, url, until) in rows {
        let handoff = HandoffRow {
            sender: unpack(sender).into(),
            user: vec![unpack(user).into()],
            url: unpack(url),
            until: packing::time(until)?,
        };
        HandoffRow::collect(&mut found, conversation, handoff);
    }
    Ok(found.into_iter().map(|(_, handoff)| handoff).collect())
}

/// Merges the handoff of conversation `source` into that of `target`: the one that lasts longer stays.
// Data-modifying parts of one statement share a snapshot, so the INSERT reads the deleted row from RETURNING.
pub(super) async fn merge_handoffs(
    db: &mut PgConnection,
    target: i64,
    source: i64,
) -> Result<(), CallError> {
    sqlx::query(
        "WITH deleted AS (DELETE FROM handoff WHERE conversation = $2 RETURNING url, until) \
         INSERT INTO handoff AS h (conversation, url, until) SELECT $1, url, until FROM deleted \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until WHERE excluded.until > h.until",
    )
    .bind(target)
    .bind(source)
    .execute(db)
    .await?;
    Ok(())
}
