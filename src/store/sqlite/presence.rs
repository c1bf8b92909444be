//! Whether the database is where it was opened. SQLite goes on writing to a file that was deleted or moved away, and what
//! it keeps there nobody finds again.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::schema::Place;
use crate::store::{StoreError, StoreErrorKind};

/// The database's files as they were opened, and the lock that says whose they are.
pub(super) struct Presence {
    place: Place,
    files: Vec<(PathBuf, Identity)>,
    lock: (PathBuf, Identity, File),
}

/// Which file a name stands for: its device and its number there.
type Identity = (u64, u64);

impl Presence {
    /// Of a database that is open, with its lock. Nothing where it is in memory.
    pub(super) fn of(place: &Place, lock: Option<File>) -> Result<Option<Self>, StoreError> {
        let (Some(path), Some(lock)) = (&place.path, lock) else {
            return Ok(None);
        };
        let opened = |name: PathBuf| match identity(&name) {
            Ok(identity) => Ok((name, identity)),
            Err(error) => Err(gone(&name, &error.to_string())),
        };
        let files = vec![opened(path.clone())?, opened(beside(path, "-wal"))?];
        let (name, identity) = opened(beside(path, ".lock"))?;
        Ok(Some(Self {
            place: place.clone(),
            files,
            lock: (name, identity, lock),
        }))
    }

    /// Fails where a write would be kept in a file that has no name any more, or in one that another server owns.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        for (name, opened) in &self.files {
            match identity(name) {
                Ok(found) if found == *opened => {}
                Ok(_) => return Err(gone(name, "another file has its place")),
                Err(error) => return Err(gone(name, &error.to_string())),
            }
        }
        let (name, opened, _) = &self.lock;
        match identity(name) {
            Ok(found) if found == *opened => Ok(()),
            Ok(_) => self.lock_again(),
            Err(error) if error.kind() == ErrorKind::NotFound => self.lock_again(),
            Err(error) => Err(gone(name, &error.to_string())),
        }
    }

    /// The file of the lock alone is another one: the database is this server's still, unless another one was quicker.
    fn lock_again(&mut self) -> Result<(), StoreError> {
        let (name, opened, lock) = &mut self.lock;
        if let Some(again) = self.place.lock()? {
            *opened = identity(name).map_err(|error| gone(name, &error.to_string()))?;
            *lock = again;
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

/// The file itself where a name is a symbolic link, so that it has one lock by whatever name.
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
    let found = name.metadata()?;
    Ok((found.dev(), found.ino()))
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
