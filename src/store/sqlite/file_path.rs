//! Path and identity of the database file and of the files next to it.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device and inode of a file.
pub(super) type FileIdentity = (u64, u64);

/// Returns the identity of the file with this metadata.
pub(super) fn identity(metadata: &Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino())
}

/// Returns the path of a file next to the database: the database's path with `end` appended.
pub(super) fn with_suffix(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Resolves symbolic links. SQLite names the write-ahead log after the database's path, so all processes must use one
/// path.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // Not `canonicalize`, which fails if the file does not exist yet. The kernel follows 40 links too.
    for _ in 0..40 {
        let Ok(target) = path.read_link() else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}
