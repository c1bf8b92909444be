//! Handoffs in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::address::Address;
use crate::store::error::StoreError;
use crate::store::handoff::{HandoffChange, HandoffRow};
use crate::store::packing;

/// Returns the URL of a conversation's handoff, if one is active.
pub(super) fn handoff_url(
    db: &Connection,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let url = db
        .prepare_cached("SELECT url FROM handoff WHERE conversation = ?1 AND until > ?2")?
        .query_row([conversation, now.as_microsecond()], |row| row.get(0))
        .optional()?;
    Ok(url)
}

/// Ends the handoffs of a user, and returns their number.
pub(super) fn end_handoff(
    db: &Connection,
    sender: Option<&Address>,
    user: &Address,
    now: Timestamp,
) -> Result<u64, StoreError> {
    // Only active handoffs, since their number is returned. The row of an expired one has no effect.
    let ended = db
        .prepare_cached(
            "DELETE FROM handoff WHERE until > ?3 AND conversation IN (\
               SELECT conversation FROM conversation_address WHERE address = ?2 AND (?1 IS NULL OR sender = ?1))",
        )?
        .execute(params![
            sender.map(Address::as_str),
            user.as_str(),
            now.as_microsecond()
        ])?;
    Ok(ended as u64)
}

/// Lists active handoffs, those that end first before the others.
pub(super) fn active_handoffs(
    db: &Connection,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<HandoffRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT h.conversation, a.sender, a.address, h.url, h.until \
         FROM (SELECT conversation, url, until FROM handoff WHERE until > ?1 ORDER BY until, conversation LIMIT ?2) h \
         JOIN conversation_address a ON a.conversation = h.conversation \
         ORDER BY h.until, h.conversation, a.address",
    )?;
    let mut rows = statement.query(params![now.as_microsecond(), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (sender, user): (String, String) = (row.get(1)?, row.get(2)?);
        let handoff = HandoffRow {
            sender: sender.into(),
            user: vec![user.into()],
            url: row.get(3)?,
            until: packing::time(row.get(4)?)?,
        };
        HandoffRow::collect(&mut found, row.get(0)?, handoff);
    }
    Ok(found.into_iter().map(|(_, handoff)| handoff).collect())
}

/// Returns the end of a conversation's handoff, which may have passed.
pub(super) fn handoff_end(db: &Connection, conversation: i64) -> Result<Option<i64>, StoreError> {
    let until = db
        .prepare_cached("SELECT until FROM handoff WHERE conversation = ?1")?
        .query_row([conversation], |row| row.get(0))
        .optional()?;
    Ok(until)
}

pub(super) fn change_handoff(
    db: &Connection,
    conversation: i64,
    change: Option<&HandoffChange>,
) -> Result<(), StoreError> {
    let Some(change) = change else { return Ok(()) };
    match change.columns() {
        (Some(url), until) => db
            // A handoff that begins replaces an earlier one, which may have passed.
            .prepare_cached(
                "INSERT INTO handoff (conversation, url, until) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until",
            )?
            .execute(params![conversation, url, until])?,
        // Changes nothing if the handoff was ended while this message was handled: then it has no row.
        (None, until) => db
            .prepare_cached("UPDATE handoff SET until = ?2 WHERE conversation = ?1")?
            .execute([conversation, until])?,
    };
    Ok(())
}

/// Merges the handoffs of two conversations of one user: the later end wins.
pub(super) fn merge_handoffs(db: &Connection, target: i64, source: i64) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO handoff (conversation, url, until) SELECT ?1, url, until FROM handoff WHERE conversation = ?2 \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until WHERE excluded.until > until",
        [target, source],
    )?;
    delete_handoff(db, source)
}

pub(super) fn delete_handoff(db: &Connection, conversation: i64) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM handoff WHERE conversation = ?1",
        [conversation],
    )?;
    Ok(())
}
