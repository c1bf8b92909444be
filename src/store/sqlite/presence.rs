//! Check that the database is still the file that was opened.
//!
//! SQLite continues to write to a file that was deleted or moved away. After a restart that data would be missing.

use std::path::{Path, PathBuf};

use super::file_path::{self, FileIdentity, with_suffix};
use super::schema::DatabaseFile;
use crate::store::error::{StoreError, StoreErrorKind};

/// Paths and identities of the database and its write-ahead log when they were opened.
pub(super) struct Presence {
    files: Vec<(PathBuf, FileIdentity)>,
}

impl Presence {
    /// Returns the current identities of an open database's files; `None` for a database in memory.
    pub(super) fn of(database: &DatabaseFile) -> Result<Option<Self>, StoreError> {
        let Some(path) = &database.path else {
            return Ok(None);
        };
        let opened = |name: PathBuf| match identity(&name) {
            Ok(identity) => Ok((name, identity)),
            Err(error) => Err(file_replaced(&name, &error.to_string())),
        };
        // The log is checked too: commits are in the log first, and without it they are lost although the database is
        // there.
        let files = vec![opened(path.clone())?, opened(with_suffix(path, "-wal"))?];
        Ok(Some(Self { files }))
    }

    /// Fails if a path leads to no file or to another file than the one that was opened.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (name, opened) in &self.files {
            match identity(name) {
                Ok(found) if found == *opened => {}
                Ok(_) => return Err(file_replaced(name, "another file has its name")),
                Err(error) => return Err(file_replaced(name, &error.to_string())),
            }
        }
        Ok(())
    }
}

fn identity(name: &Path) -> std::io::Result<FileIdentity> {
    Ok(file_path::identity(&name.metadata()?))
}

fn file_replaced(name: &Path, why: &str) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Unavailable,
        format!(
            "{} is not the file that was opened ({why}); put it back, and the server continues; if it is lost, stop the server, \
             restore a backup, and run `replyhook reconcile`",
            name.display()
        ),
    )
}
