//! Whether the database is where it was opened. SQLite goes on writing to a file that was deleted or moved away, and what
//! it keeps there nobody finds again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ownership::{self, Identity};
use super::schema::Place;
use crate::store::{StoreError, StoreErrorKind};

/// The database and its write-ahead log as they were opened.
pub(super) struct Presence {
    files: Vec<(PathBuf, Identity)>,
}

impl Presence {
    /// The files of a database that is open. Nothing where it is in memory.
    pub(super) fn of(place: &Place) -> Result<Option<Self>, StoreError> {
        let Some(path) = &place.path else {
            return Ok(None);
        };
        let opened = |name: PathBuf| match identity(&name) {
            Ok(identity) => Ok((name, identity)),
            Err(error) => Err(gone(&name, &error.to_string())),
        };
        let files = vec![opened(path.clone())?, opened(beside(path, "-wal"))?];
        Ok(Some(Self { files }))
    }

    /// Fails where a write would be kept in a file that has no name any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (name, opened) in &self.files {
            match identity(name) {
                Ok(found) if found == *opened => {}
                Ok(_) => return Err(gone(name, "another file has its place")),
                Err(error) => return Err(gone(name, &error.to_string())),
            }
        }
        Ok(())
    }
}

/// The database's path with something behind it.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// The file itself where a name is a symbolic link, so that it has one write-ahead log by whatever name.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(target) = path.read_link() else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

fn identity(name: &Path) -> std::io::Result<Identity> {
    Ok(ownership::identity(&name.metadata()?))
}

fn gone(name: &Path, why: &str) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Unavailable,
        format!(
            "{} is not the file that was opened ({why}): put it back, and the server goes on; if it is lost, stop the server, \
             restore a backup, and run `replyhook reconcile`",
            name.display()
        ),
    )
}
