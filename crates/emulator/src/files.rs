//! Media files named by path (`media[].path`). Only regular files below one folder can be read.
//!
//! Every local user can call the emulator, which runs with the rights of the user who started it. So paths must not
//! reach files outside the folder, nor reveal whether they exist.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Folder in which paths are looked up.
#[derive(Debug)]
pub(super) struct MediaFolder {
    /// Canonical path, without symbolic links.
    path: PathBuf,
    descriptor: OwnedFd,
}

impl MediaFolder {
    /// Opens the folder. The descriptor stays with this folder, even if `path` later leads to another one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, &path, flags, Mode::empty())?;
        Ok(Self { path, descriptor })
    }

    /// Reads a file below the folder.
    ///
    /// # Errors
    /// An explanation. It is the same for all files outside the folder, whether they exist or not.
    pub(super) fn read(&self, path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
        let explain = |_| {
            format!(
                "cannot be read: not a file below {}, the emulator's media folder; \
                 start dev with --media-dir DIR for another folder",
                self.path.display()
            )
        };
        let file = self.open_file(path).map_err(explain)?;
        let length = file.metadata().map_err(explain)?.len();
        if length > max_bytes as u64 {
            return Err("larger than 16 MiB".to_owned());
        }
        let mut bytes = Vec::new();
        // Read no more than the checked length: the file may grow. Files that the kernel generates, such as those of
        // /proc, report length 0 and stay empty.
        let mut file = file.take(length);
        file.read_to_end(&mut bytes).map_err(explain)?;
        Ok(bytes)
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        let not_found = || io::Error::from(ErrorKind::NotFound);
        // Resolve symbolic links only here, so that the check of the result covers all of them. `join` replaces the
        // folder by an absolute `path`, which then fails the check unless it is below the folder.
        let resolved = self.path.join(path).canonicalize()?;
        let relative = resolved.strip_prefix(&self.path).map_err(|_| not_found())?;
        // Before opening: opening a device can have effects.
        if !resolved.symlink_metadata()?.is_file() {
            return Err(not_found());
        }
        // Open each component with NOFOLLOW, starting at the folder's descriptor. A folder that is replaced by a link
        // after `canonicalize` is then not followed. NONBLOCK: opening a pipe in the file's place must not wait for a
        // writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = self.descriptor.try_clone()?;
        let mut names = relative.components().peekable();
        while let Some(name) = names.next() {
            let extra_flags = match names.peek() {
                Some(_) => OFlags::DIRECTORY,
                None => OFlags::NOCTTY,
            };
            opened = openat(
                &opened,
                name.as_os_str(),
                flags | extra_flags,
                Mode::empty(),
            )?;
        }
        let file = File::from(opened);
        // Check the opened file again: the path may have been replaced since the check above.
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(not_found())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a media folder with files and links, next to a file that must stay secret.
    fn folders() -> (tempfile::TempDir, MediaFolder) {
        let all = tempfile::tempdir().unwrap();
        let media = all.path().join("media");
        std::fs::create_dir_all(media.join("deep")).unwrap();
        std::fs::write(media.join("deep/a.png"), "picture").unwrap();
        std::fs::write(all.path().join("secret"), "token").unwrap();
        symlink("deep/a.png", media.join("in")).unwrap();
        symlink("../secret", media.join("out")).unwrap();
        symlink("..", media.join("up")).unwrap();
        let folder = MediaFolder::open(&media).unwrap();
        (all, folder)
    }

    #[test]
    fn media_file_inside_folder_is_read() {
        let (all, folder) = folders();
        let absolute = all.path().join("media/deep/a.png");
        for path in ["deep/a.png", "deep/../in", absolute.to_str().unwrap()] {
            assert_eq!(
                folder.read(Path::new(path), 7).unwrap(),
                b"picture",
                "{path}"
            );
        }
        let error = folder.read(Path::new("in"), 6).unwrap_err();
        assert_eq!(error, "larger than 16 MiB");
    }

    // The error is the same as for a missing file, so paths outside cannot be probed.
    #[test]
    fn media_file_outside_folder_looks_missing() {
        let (all, folder) = folders();
        let secret = all.path().join("secret");
        let expected = folder.read(Path::new("missing"), 100).unwrap_err();
        for path in [
            "../secret",
            secret.to_str().unwrap(),
            "out",
            "up/secret",
            "deep",
            "",
            "deep/a.png/",
            "../missing",
            "/proc/self/environ",
            "/dev/zero",
            "deep/\0",
        ] {
            assert_eq!(
                folder.read(Path::new(path), 100).unwrap_err(),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn media_folder_replaced_by_symlink_reads_nothing() {
        let (all, folder) = folders();
        std::fs::rename(all.path().join("media"), all.path().join("old")).unwrap();
        std::fs::create_dir(all.path().join("other")).unwrap();
        std::fs::write(all.path().join("other/b.png"), "token").unwrap();
        symlink(all.path().join("other"), all.path().join("media")).unwrap();
        folder.read(Path::new("b.png"), 100).unwrap_err();
    }
}
