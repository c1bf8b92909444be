//! [`Store::check`](crate::store::Store::check) in SQLite.

use rusqlite::Connection;

use super::journal;
use crate::store::{Acceptance, Choice, StoreError, StoreErrorKind, check, rows};

/// Accepts and answers a message, writes all of that to the log, and takes it back; then commits a small change.
pub(super) fn check(db: &Connection, me: i64) -> Result<(), StoreError> {
    let run = |sql: &str| db.prepare_cached(sql)?.execute([]);
    // Another number each time: the index of keys is in many pages, and any of them may be damaged.
    let arrival = check::arrival(rows::new_owner())?;
    // Where something fails the writer rolls the whole transaction back.
    run("SAVEPOINT checked")?;
    let id = match journal::accept(db, me, &arrival)? {
        Acceptance::New(claim) => claim.id,
        _ => return Err(StoreError::new(StoreErrorKind::Internal)),
    };
    journal::decide(db, me, id, &Choice::Twiml("checked".to_owned()), arrival.at)?;
    // Otherwise nothing of it would be written before it is taken back, and a full disk would not be noticed.
    db.cache_flush()?;
    run("ROLLBACK TO checked")?;
    run("RELEASE checked")?;
    // A commit without a change is not synced.
    run(
        "INSERT INTO meta (name, value) VALUES ('checks', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
    )?;
    Ok(())
}
