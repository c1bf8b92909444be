//! Ownership of the database file by one server, with an operating-system lock on the file itself.
//!
//! The lock belongs to the inode. It holds whatever name another server opens the file by: a hard link, a symbolic link
//! or a bind mount.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::file_path::{FileIdentity, identity, with_suffix};
use crate::lock::IgnorePoison;
use crate::store::error::{StoreError, StoreErrorKind};

/// Every file that this process has locked, with its descriptor.
///
/// Entries are never removed, because their descriptors must not be closed: closing any descriptor of a file drops all
/// POSIX locks that the process has on it (`fcntl(2)`), those of SQLite's connections included. Another process could
/// then take the write-ahead log for its own. An open descriptor also keeps the inode's number from being used again.
static LOCKED: Mutex<Vec<Locked>> = Mutex::new(Vec::new());

struct Locked {
    file: FileIdentity,
    descriptor: File,
    /// True while an [`Ownership`] exists. The lock alone would not tell: a second lock of one descriptor succeeds.
    is_owned: bool,
}

/// The ownership of one database file. Dropping it unlocks the file.
#[derive(Debug)]
pub(super) struct Ownership(FileIdentity);

impl Ownership {
    /// Locks the database at `path`, and creates it for this user alone if it does not exist.
    ///
    /// This must come before SQLite opens the file.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let target = lock_target(path);
        let mut locked = locked();
        let at = open(&mut locked, &target).map_err(|error| not_opened(&target, &error))?;
        let entry = &mut locked[at];
        if entry.is_owned {
            return Err(owned(path));
        }
        match entry.descriptor.try_lock() {
            Ok(()) => {
                entry.is_owned = true;
                Ok(Self(entry.file))
            }
            Err(TryLockError::WouldBlock) => Err(owned(path)),
            Err(TryLockError::Error(error)) => Err(StoreError::with_source(
                StoreErrorKind::Unavailable,
                format!(
                    "{} cannot be locked: {error}; put the database on a local file system that has file locks",
                    target.display()
                ),
            )),
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let mut locked = locked();
        if let Some(entry) = locked.iter_mut().find(|entry| entry.file == self.0) {
            // This cannot fail for an open descriptor. If it did, the file would stay locked until the process ends.
            let _ = entry.descriptor.unlock();
            entry.is_owned = false;
        }
    }
}

fn locked() -> MutexGuard<'static, Vec<Locked>> {
    // A poisoned lock is usable: every change of the list is a push or the assignment of one field.
    LOCKED.lock().ignore_poison()
}

/// Returns the file to lock: the database, or a file next to it that ends with `.lock`.
// The latter is for systems where `flock` and SQLite's `fcntl` locks exclude each other.
fn lock_target(path: &Path) -> PathBuf {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        path.to_owned()
    } else {
        with_suffix(path, ".lock")
    }
}

/// Returns the index of the entry for the file at `path`, and adds one if there is none.
fn open(locked: &mut Vec<Locked>, path: &Path) -> std::io::Result<usize> {
    let position = |locked: &[Locked], file| locked.iter().position(|entry| entry.file == file);
    // Do not open a file that has an entry: a second descriptor could never be closed.
    if let Ok(metadata) = path.metadata()
        && let Some(at) = position(locked, identity(&metadata))
    {
        return Ok(at);
    }
    let descriptor = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let file = match descriptor.metadata() {
        Ok(metadata) => identity(&metadata),
        Err(error) => {
            // Closing it could drop the locks of a connection of SQLite.
            std::mem::forget(descriptor);
            return Err(error);
        }
    };
    if let Some(at) = position(locked, file) {
        // The name led to another file when it was checked above.
        std::mem::forget(descriptor);
        return Ok(at);
    }
    locked.push(Locked {
        file,
        descriptor,
        is_owned: false,
    });
    Ok(locked.len() - 1)
}

fn not_opened(path: &Path, error: &std::io::Error) -> StoreError {
    let remedy = match error.kind() {
        ErrorKind::NotFound => "create the folder, or correct DATABASE_URL",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "it cannot be opened for writing; check its owner and mode"
        }
        _ => "it must be a file on a local disk, in a folder that this user may write to",
    };
    let text = format!("{}: {error}; {remedy}", path.display());
    StoreError::with_source(StoreErrorKind::Unavailable, text)
}

fn owned(path: &Path) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Owned,
        format!(
            "{} is locked; stop the other server, or set another DATABASE_URL (several servers can share PostgreSQL)",
            path.display()
        ),
    )
}

/// Fails if a server has the database open by another name.
///
/// SQLite's write-ahead log is named after the database. Changes by a second name go to a second log. The server does
/// not read that log, and writing it back damages the database.
pub(super) fn reject_second_name(path: &Path) -> Result<(), StoreError> {
    let has_links = path.metadata().is_ok_and(|metadata| metadata.nlink() > 1);
    // A server's write-ahead log exists as long as the server runs. With a log under this name, this name is the
    // server's.
    if !has_links || with_suffix(path, "-wal").exists() {
        return Ok(());
    }
    let mut locked = locked();
    let Ok(at) = open(&mut locked, &lock_target(path)) else {
        return Ok(());
    };
    let entry = &mut locked[at];
    if !entry.is_owned {
        // A server that starts while this lock is held does not start. The lock is held for microseconds, and only
        // for a file with several names.
        match entry.descriptor.try_lock_shared() {
            Ok(()) => {
                let _ = entry.descriptor.unlock();
                return Ok(());
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
    Err(StoreError::with_source(
        StoreErrorKind::Unavailable,
        format!(
            "{} is a hard link to the database of a running server; use the server's DATABASE_URL",
            path.display()
        ),
    ))
}

/// Returns problems of a database file's links and mode, one sentence each. A missing file has no problems.
///
/// ```
/// use std::os::unix::fs::PermissionsExt;
///
/// let file = tempfile::NamedTempFile::new()?;
/// assert!(replyhook::store::sqlite::file_warnings(file.path()).is_empty());
/// file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
/// let warnings = replyhook::store::sqlite::file_warnings(file.path());
/// assert!(warnings[0].contains("chmod 600"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn file_warnings(path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let Ok(metadata) = path.metadata() else {
        return warnings;
    };
    let (name, links, mode) = (path.display(), metadata.nlink(), metadata.mode() & 0o777);
    if links > 1 {
        warnings.push(format!(
            "{name} has {links} names (hard links); use one name only, and remove the others: each name has a write-ahead \
             log of its own, and messages written by one are lost to the other"
        ));
    }
    // Read access exposes messages, and write access lets others replace them.
    if mode & 0o066 != 0 {
        warnings.push(format!(
            "{name} holds messages and phone numbers, and other users may open it (mode {mode:04o}); run: chmod 600 {name}*"
        ));
    }
    warnings
}
