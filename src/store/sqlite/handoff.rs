//! Changes of handoffs in SQLite.

use rusqlite::{Connection, params};

use crate::store::error::StoreError;
use crate::store::handoff::HandoffChange;

pub(super) fn change_handoff(
    db: &Connection,
    conversation: i64,
    change: Option<&HandoffChange>,
) -> Result<(), StoreError> {
    let Some(change) = change else { return Ok(()) };
    match change.columns() {
        (Some((url, ttl)), until) => db
            // A handoff that begins replaces an earlier one, which may have passed.
            .prepare_cached(
                "INSERT INTO handoff (conversation, url, until, ttl) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until, ttl = excluded.ttl",
            )?
            .execute(params![conversation, url, until, ttl])?,
        // Changes nothing if the handoff was ended while this message was handled: then it has no row.
        (None, until) => db
            .prepare_cached("UPDATE handoff SET until = ?2 WHERE conversation = ?1")?
            .execute([conversation, until])?,
    };
    Ok(())
}
