//! Opening of the database: settings of a connection, checks of the file, and migrations.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::database::ready;
use super::error::store_error;
use super::ownership::{file_warnings, reject_second_name};
use crate::store::access::Access;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::shared::media;
use crate::store::versions::{self, MIN_READER, SCHEMA};

/// All migrations, oldest first. Their numbers are the same as PostgreSQL's.
const MIGRATIONS: [&str; SCHEMA] = [include_str!("migrations/0001_initial.sql")];
/// "rply": marks the file, so that the database of another program is not opened.
const APPLICATION_ID: i64 = 0x7270_6c79;
/// Maximum size in bytes of a database that is checked completely at the start.
// A complete check of a larger file would delay the start. There a damaged page is found when it is read.
const CHECKED_AT_START: u64 = 32 * 1024 * 1024;

/// Location of the database, and the wait for its locks.
#[derive(Clone)]
pub(super) struct DatabaseFile {
    /// `None` for a database in memory.
    pub(super) path: Option<PathBuf>,
    /// Busy handler of each connection.
    pub(super) wait_for_lock: fn(i32) -> bool,
}

impl DatabaseFile {
    /// Opens a connection that can write, and whose commits are durable.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        // NO_MUTEX: each connection is used by one thread at a time.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = match &self.path {
            // Without CREATE: `Ownership::take` creates the file. A connection that is opened later must not create a
            // new, empty file where the first one is gone.
            Some(path) => Connection::open_with_flags(path, flags),
            None => Connection::open_in_memory_with_flags(flags),
        };
        let mut db = db.map_err(|error| self.explained(error))?;
        // SQLite opens a file that it may not write without an error, and read-only.
        if let Some(path) = &self.path
            && db.is_readonly("main")?
        {
            let text = format!(
                "{} cannot be opened for writing; check its owner and mode",
                path.display()
            );
            return Err(StoreError::with_source(StoreErrorKind::Unavailable, text));
        }
        self.prepare(&mut db)
            .map_err(|error| self.explained(error))?;
        // On a file system without shared memory SQLite stays in another journal mode, also without an error.
        if self.path.is_some() {
            let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            let journal: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            if synchronous != 2 || journal != "wal" {
                return Err(StoreError::with_source(
                    StoreErrorKind::Internal,
                    format!(
                        "the database cannot use a write-ahead log with synchronous=FULL (journal {journal}, synchronous \
                         {synchronous}); put it on a local file system"
                    ),
                ));
            }
        }
        Ok(db)
    }

    fn prepare(&self, db: &mut Connection) -> rusqlite::Result<()> {
        db.busy_handler(Some(self.wait_for_lock))?;
        // Enough for all statements that accept a message, save its response and send its replies.
        db.set_prepared_statement_cache_capacity(64);
        // Plans must not depend on bound values. Otherwise SQLite plans a cached statement again whenever they change.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        if let Some(path) = &self.path {
            // The first change of a new file is its first page, which marks it as one with a write-ahead log. A file without
            // content needs no rollback journal on the disk for that, and each sync of one delays the first start.
            if path.metadata().is_ok_and(|file| file.len() == 0) {
                db.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
            }
            // A query: it returns the mode that is in force afterwards.
            db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            // The log is synced at every commit, so that an acknowledged message survives a loss of power.
            db.pragma_update(None, "synchronous", "full")?;
            // Bytes. A log that has grown longer is cut to this length after a checkpoint.
            db.pragma_update(None, "journal_size_limit", 67_108_864)?;
            // Pages. Between two checkpoints a page may be written many times and is copied once. On a server's writer
            // the hook of `Checkpointer::attach` replaces this.
            db.pragma_update(None, "wal_autocheckpoint", 8_000)?;
        }
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "temp_store", "memory")?;
        // KiB, because it is negative. Enough for the upper pages of every index of a million messages. The lower pages of the
        // largest index, the SIDs, are read in random order, so that a larger cache would hold few of those that come next. Each
        // commit after a page split scans the table of the cache, so that a larger one also takes more time.
        db.pragma_update(None, "cache_size", -2000)?;
        // Pages. A transaction that changes more than the cache holds, as one with hundreds of messages does, would otherwise
        // write pages before its end, and some of them twice.
        db.pragma_update(None, "cache_spill", 2_000)?;
        // Deleted content is overwritten where that costs no further I/O. `purge_user` sets this to `on`.
        db.pragma_update_and_check(None, "secure_delete", "fast", |_| Ok(()))?;
        Ok(())
    }

    /// Opens a connection that only reads.
    pub(super) fn connect_to_read(&self) -> Result<Connection, StoreError> {
        let path = self
            .path
            .as_ref()
            .ok_or_else(|| StoreError::new(StoreErrorKind::Internal))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // The journal mode is a property of the file, so nothing but the timeout is set.
        let mut db = Connection::open_with_flags(path, flags)?;
        db.busy_handler(Some(self.wait_for_lock))?;
        Ok(db)
    }

    /// Converts an error of SQLite, and adds the path and a remedy.
    fn explained(&self, error: rusqlite::Error) -> StoreError {
        let kind = store_error(error);
        let Some(path) = &self.path else { return kind };
        let remedy = format!("; {}", restore(path));
        let remedy = match kind.kind() {
            StoreErrorKind::Corrupt => &remedy,
            StoreErrorKind::Unavailable => {
                "; it must be a file on a local disk, in a folder that this user may write to"
            }
            _ => "",
        };
        let source = std::error::Error::source(&kind).map_or_else(String::new, ToString::to_string);
        StoreError::with_source(kind.kind(), format!("{}: {source}{remedy}", path.display()))
    }

    /// Opens the database as `access` allows. Its owner must hold the [`Ownership`](super::ownership::Ownership).
    pub(super) fn open(&self, access: Access) -> Result<Connection, StoreError> {
        // A path without a file is most likely a mistake in the environment of the command.
        let exists = self.path.as_ref().is_none_or(|path| path.exists());
        if access == Access::Operator && !exists {
            let path = self.path.clone().unwrap_or_default();
            return Err(StoreError::with_source(
                StoreErrorKind::Unavailable,
                format!(
                    "{} does not exist; use the server's DATABASE_URL",
                    path.display()
                ),
            ));
        }
        if let Some(path) = &self.path {
            match access {
                Access::Operator => reject_second_name(path)?,
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

    /// Checks that the database belongs to replyhook and is not damaged.
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
        // A new database has neither the ID nor tables.
        if id != APPLICATION_ID && tables > 0 {
            return Err(StoreError::with_source(
                StoreErrorKind::Corrupt,
                format!(
                    "{} is another program's database; name another file in DATABASE_URL",
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
                format!("{}: {found}; {}", path.display(), restore(path)),
            ));
        }
        Ok(())
    }
}

/// Returns the remedy for a damaged file.
fn restore(path: &Path) -> String {
    // The damage may come from a backup that was copied next to the write-ahead log of another file.
    let path = path.display();
    format!(
        "restore a backup, but first remove {path}-wal and {path}-shm, which belong to the current file; or move all three \
         away to start with an empty store, which loses saved responses and opt-outs"
    )
}

/// Returns the number of the schema, if this program may work on it. It may be higher than the newest known one.
fn version(db: &Connection) -> Result<usize, StoreError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    let known = MIGRATIONS.len();
    // 0 is a database without a schema.
    if version > 0 {
        let path = db.path().unwrap_or_default();
        let remedy = format!("move {path}, {path}-wal and {path}-shm away");
        versions::check_initial_schema(
            MIGRATIONS[0],
            meta(db, versions::INITIAL_SCHEMA_NAME)?,
            &remedy,
        )?;
    }
    if version > known {
        versions::check_readable(version, known, meta(db, versions::MIN_READER_NAME)?)?;
    }
    Ok(version)
}

fn meta(db: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    let value = db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
        row.get(0)
    });
    Ok(value.optional()?)
}

fn current(db: &Connection) -> Result<(), StoreError> {
    let (version, known) = (version(db)?, MIGRATIONS.len());
    if version >= known {
        return Ok(());
    }
    Err(versions::older_schema(version, known))
}

/// Applies all missing migrations in one transaction.
fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    if version(db)? >= MIGRATIONS.len() {
        return Ok(());
    }
    // One transaction, so that a crash leaves the old schema. The version is read again under the write lock.
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let from = version(&transaction)?;
    if from >= MIGRATIONS.len() {
        return Ok(());
    }
    for sql in &MIGRATIONS[from..] {
        transaction.execute_batch(sql)?;
        crate::crash_point!("P15");
    }
    if from == 0 {
        // In this transaction, so that a new store takes one commit.
        ready(media::link_signing_key(&mut &*transaction))?;
        transaction.execute(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)",
            (
                versions::INITIAL_SCHEMA_NAME,
                versions::fingerprint(MIGRATIONS[0]),
            ),
        )?;
    }
    // An upsert: the value of the newest program replaces that of an older one.
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (versions::MIN_READER_NAME, i64::try_from(MIN_READER).unwrap_or(i64::MAX)),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(MIGRATIONS.len()).unwrap_or(0),
    )?;
    transaction.commit()?;
    let to = MIGRATIONS.len();
    if db.path().is_none_or(str::is_empty) {
        // Each start of a store in memory makes its schema.
        tracing::debug!(from, to, "migrated the store's schema");
    } else {
        tracing::info!(from, to, "migrated the store's schema");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_without_write_ahead_log_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        std::fs::File::create(&file).unwrap();
        // This VFS has no shared memory, like some network file systems.
        let path = format!("file:{}?vfs=unix-dotfile", file.display());
        let database = DatabaseFile {
            path: Some(path.into()),
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let error = database.connect().unwrap_err().to_string();
        assert!(error.contains("(journal delete, synchronous 2)"), "{error}");
    }
}
