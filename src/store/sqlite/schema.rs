//! Opening the file: whose it is, how it is written, which version made it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::store_error;
use super::ownership::{file_warnings, refuse_second_name};
use crate::store::{Access, MIN_READER, SCHEMA, StoreError, StoreErrorKind, rows};

/// All versions of the schema, oldest first; the same numbers as PostgreSQL's.
const MIGRATIONS: [&str; SCHEMA] = [
    include_str!("migrations/0001_journal.sql"),
    include_str!("migrations/0002_previous.sql"),
    include_str!("migrations/0003_sending.sql"),
    include_str!("migrations/0004_media.sql"),
    include_str!("migrations/0005_handover.sql"),
    include_str!("migrations/0006_order.sql"),
    include_str!("migrations/0007_scheduled.sql"),
    include_str!("migrations/0008_reply_order.sql"),
    include_str!("migrations/0009_media_link_key.sql"),
    include_str!("migrations/0010_retention.sql"),
];
/// "rply", so that another program's database is not taken for ours.
const APPLICATION_ID: i64 = 0x7270_6c79;
/// Above this a damaged page is found when it is read, and not at the start.
const CHECKED_AT_START: u64 = 32 * 1024 * 1024;

/// Where the database is, and how patiently it is opened.
#[derive(Clone)]
pub(super) struct Place {
    /// `None` is memory.
    pub(super) path: Option<PathBuf>,
    /// How long a lock is waited for.
    pub(super) patience: Duration,
}

impl Place {
    /// A connection that writes, durably.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = match &self.path {
            // It is made when it is first opened, and not in the place of one that is gone.
            Some(path) => Connection::open_with_flags(path, flags),
            None => Connection::open_in_memory_with_flags(flags),
        };
        let db = db.map_err(|error| self.explained(error))?;
        if let Some(path) = &self.path
            && db.is_readonly("main")?
        {
            let text = format!(
                "{}: it may not be written: look at its owner and mode",
                path.display()
            );
            return Err(StoreError::with_source(StoreErrorKind::Unavailable, text));
        }
        self.prepare(&db).map_err(|error| self.explained(error))?;
        if self.path.is_some() {
            let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            let journal: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            if synchronous != 2 || journal != "wal" {
                return Err(StoreError::with_source(
                    StoreErrorKind::Internal,
                    format!(
                        "it cannot be written durably (journal {journal}, synchronous {synchronous})"
                    ),
                ));
            }
        }
        Ok(db)
    }

    fn prepare(&self, db: &Connection) -> rusqlite::Result<()> {
        db.busy_timeout(self.patience)?;
        db.set_prepared_statement_cache_capacity(64);
        // A plan may not hang on what is bound: else a cached statement is planned anew whenever that changes.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        if self.path.is_some() {
            // A query: it answers with the mode it could take.
            db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            db.pragma_update(None, "synchronous", "full")?;
            db.pragma_update(None, "journal_size_limit", 67_108_864)?;
            // Pages: each is copied once in so many, however often it was written. Not on a server's writer: see checkpoint.rs.
            db.pragma_update(None, "wal_autocheckpoint", 8_000)?;
        }
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "temp_store", "memory")?;
        // KiB: enough for the upper pages of every index of a million messages.
        db.pragma_update(None, "cache_size", -8000)?;
        // What is deleted is overwritten where that costs nothing.
        db.pragma_update_and_check(None, "secure_delete", "fast", |_| Ok(()))?;
        Ok(())
    }

    /// A connection that only reads.
    pub(super) fn connect_to_read(&self) -> Result<Connection, StoreError> {
        let path = self
            .path
            .as_ref()
            .ok_or_else(|| StoreError::new(StoreErrorKind::Internal))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(self.patience)?;
        Ok(db)
    }

    fn explained(&self, error: rusqlite::Error) -> StoreError {
        let kind = store_error(error);
        let Some(path) = &self.path else { return kind };
        let remedy = format!(": {}", restore(path));
        let remedy = match kind.kind() {
            StoreErrorKind::Corrupt => &remedy,
            StoreErrorKind::Unavailable => {
                ": it must be a file on a local disk, in a folder that this user may write to"
            }
            _ => "",
        };
        let source = std::error::Error::source(&kind).map_or_else(String::new, ToString::to_string);
        StoreError::with_source(kind.kind(), format!("{}: {source}{remedy}", path.display()))
    }

    /// Opens the database as `access` allows. A server has taken its ownership before.
    pub(super) fn open(&self, access: Access) -> Result<Connection, StoreError> {
        let exists = self.path.as_ref().is_none_or(|path| path.exists());
        if access == Access::Operator && !exists {
            let path = self.path.clone().unwrap_or_default();
            return Err(StoreError::with_source(
                StoreErrorKind::Unavailable,
                format!(
                    "there is no {}: set DATABASE_URL as the server has it",
                    path.display()
                ),
            ));
        }
        if let Some(path) = &self.path {
            match access {
                Access::Operator => refuse_second_name(path)?,
                Access::Owner | Access::Migrate => {
                    for warning in file_warnings(path) {
                        tracing::warn!("{warning}");
                    }
                }
            }
        }
        let mut db = self.connect()?;
        self.check(&db)?;
        match access {
            Access::Owner | Access::Migrate => migrate(&mut db)?,
            Access::Operator => current(&db)?,
        }
        Ok(db)
    }

    /// Whether it is ours and whole.
    fn check(&self, db: &Connection) -> Result<(), StoreError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let explained = |error| self.explained(error);
        let id: i64 = db
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(explained)?;
        let tables: i64 = db
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(explained)?;
        if id != APPLICATION_ID && tables > 0 {
            return Err(StoreError::with_source(
                StoreErrorKind::Corrupt,
                format!(
                    "{} is another program's database: name a file of its own",
                    path.display()
                ),
            ));
        }
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        if size > CHECKED_AT_START {
            return Ok(());
        }
        let found: String = db
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(explained)?;
        if found != "ok" {
            return Err(StoreError::with_source(
                StoreErrorKind::Corrupt,
                format!("{}: {found}: {}", path.display(), restore(path)),
            ));
        }
        Ok(())
    }
}

/// What helps where the file is damaged, or is not the one that the log beside it belongs to.
fn restore(path: &Path) -> String {
    let path = path.display();
    format!(
        "restore a backup, with {path}-wal and {path}-shm removed before it is copied here, since they belong to the file \
         that was; or move all three away to begin anew, which forgets who was answered and who has opted out"
    )
}

/// The number of the schema, if this program may work on it. A newer one may be among those.
fn version(db: &Connection) -> Result<usize, StoreError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    let known = MIGRATIONS.len();
    if version > known {
        rows::readable(version, known, min_reader(db)?)?;
    }
    Ok(version)
}

fn min_reader(db: &Connection) -> Result<Option<i64>, StoreError> {
    let least = db.query_row(
        "SELECT value FROM meta WHERE name = ?1",
        [rows::MIN_READER],
        |row| row.get(0),
    );
    Ok(least.optional()?)
}

fn current(db: &Connection) -> Result<(), StoreError> {
    let (version, known) = (version(db)?, MIGRATIONS.len());
    if version >= known {
        return Ok(());
    }
    Err(rows::older_schema(version, known))
}

/// All missing steps in one transaction.
fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    if version(db)? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let from = version(&transaction)?;
    if from >= MIGRATIONS.len() {
        return Ok(());
    }
    for sql in &MIGRATIONS[from..] {
        transaction.execute_batch(sql)?;
        crate::crash_point!("P15");
    }
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (rows::MIN_READER, i64::try_from(MIN_READER).unwrap_or(i64::MAX)),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(MIGRATIONS.len()).unwrap_or(0),
    )?;
    transaction.commit()?;
    tracing::info!(
        from,
        to = MIGRATIONS.len(),
        "the store's schema is up to date"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_can_be_no_write_ahead_log_nothing_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        std::fs::File::create(&file).unwrap();
        // This way to files shares no memory, as some file systems of a network do not.
        let path = format!("file:{}?vfs=unix-dotfile", file.display());
        let place = Place {
            path: Some(path.into()),
            patience: Duration::ZERO,
        };
        let error = place.connect().unwrap_err().to_string();
        assert!(error.contains("(journal delete, synchronous 2)"), "{error}");
    }
}
