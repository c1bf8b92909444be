//! [`Store::check`](crate::store::store_trait::Store::check) in SQLite.

use rusqlite::Connection;

use super::{accept, journal};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::journal::{AcceptOutcome, ReplyPath};
use crate::store::{check, owner};

/// Accepts and replies to a message, writes the changed pages, rolls them back, and commits a small change.
pub(super) fn check(db: &Connection, me: i64) -> Result<(), StoreError> {
    // The writer runs this inside a transaction, so that the savepoint below is nested.
    let run = |sql: &str| db.prepare_cached(sql)?.execute([]);
    // A random number: the index of keys has many pages, any of which may be damaged, and each check reads another one.
    let inbound = check::new_inbound(owner::new_owner())?;
    // After an error the writer rolls back the whole transaction, savepoint included.
    run("SAVEPOINT checked")?;
    let id = match accept::accept(db, me, &inbound, false)? {
        AcceptOutcome::Claimed(claim) => claim.id,
        _ => return Err(StoreError::new(StoreErrorKind::Internal)),
    };
    journal::decide(
        db,
        me,
        id,
        &ReplyPath::Twiml("checked".to_owned()),
        inbound.received_at,
    )?;
    // Without it no page would be written before the rollback, and a full disk would go unnoticed.
    db.cache_flush()?;
    run("ROLLBACK TO checked")?;
    run("RELEASE checked")?;
    // The commit must change something, because SQLite does not sync a commit without a change.
    run(
        "INSERT INTO meta (name, value) VALUES ('checks', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
    )?;
    Ok(())
}
