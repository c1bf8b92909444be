//! [`HandOvers`] in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use crate::address::Address;
use crate::store::{HandOverChange, HandOvers, Outcome, StoreError};

impl HandOvers for SqliteStore {
    fn handed_over(&self, conversation: i64, now: Timestamp) -> Outcome<'_, Option<String>> {
        self.read(move |db| {
            let url = db
                .prepare_cached("SELECT url FROM handover WHERE conversation = ?1 AND until > ?2")?
                .query_row([conversation, now.as_microsecond()], |row| row.get(0))
                .optional()?;
            Ok(url)
        })
    }

    fn take_back(&self, us: Option<&Address>, user: &Address, now: Timestamp) -> Outcome<'_, u64> {
        let (us, user) = (us.cloned(), user.clone());
        self.write(move |db| {
            let ended = db
                .prepare_cached(
                    "DELETE FROM handover WHERE until > ?3 AND conversation IN (\
                       SELECT conversation FROM conversation_address WHERE address = ?2 AND (?1 IS NULL OR us = ?1))",
                )?
                .execute(params![
                    us.as_ref().map(Address::as_str),
                    user.as_str(),
                    now.as_microsecond()
                ])?;
            Ok(ended as u64)
        })
    }
}

/// Until when a conversation is handed over, or was.
pub(super) fn until(db: &Connection, conversation: i64) -> Result<Option<i64>, StoreError> {
    let until = db
        .prepare_cached("SELECT until FROM handover WHERE conversation = ?1")?
        .query_row([conversation], |row| row.get(0))
        .optional()?;
    Ok(until)
}

pub(super) fn change(
    db: &Connection,
    conversation: i64,
    change: Option<&HandOverChange>,
) -> Result<(), StoreError> {
    let Some(change) = change else { return Ok(()) };
    match change.columns() {
        (Some(url), until) => db
            .prepare_cached(
                "INSERT INTO handover (conversation, url, until) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until",
            )?
            .execute(params![conversation, url, until])?,
        (None, until) => db
            .prepare_cached("UPDATE handover SET until = ?2 WHERE conversation = ?1")?
            .execute([conversation, until])?,
    };
    Ok(())
}

/// Two conversations turn out to be with one person: the hand-over that lasts longer.
pub(super) fn join(db: &Connection, kept: i64, other: i64) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO handover (conversation, url, until) SELECT ?1, url, until FROM handover WHERE conversation = ?2 \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until WHERE excluded.until > until",
        [kept, other],
    )?;
    forget(db, other)
}

pub(super) fn forget(db: &Connection, conversation: i64) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM handover WHERE conversation = ?1",
        [conversation],
    )?;
    Ok(())
}
