//! Files of this machine that a user's message names by their path: regular files below one folder.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// The folder that paths are looked up in.
///
/// Every local user can call the emulator, which runs with the rights and the environment of the user who started it.
#[derive(Debug)]
pub(super) struct MediaFolder {
    /// Without symbolic links.
    path: PathBuf,
    descriptor: OwnedFd,
}

impl MediaFolder {
    /// The folder at `path`, as it is now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, &path, flags, Mode::empty())?;
        Ok(Self { path, descriptor })
    }

    /// The content of a file below the folder.
    ///
    /// # Errors
    /// A sentence. It is the same for every file elsewhere, whether it exists or not.
    pub(super) fn read(&self, path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
        let refused = |_| {
            format!(
                "cannot be read: not a file below {}, the folder of the emulator's media (dev --media-dir DIR names another)",
                self.path.display()
            )
        };
        let file = self.open_file(path).map_err(refused)?;
        let length = file.metadata().map_err(refused)?.len();
        if length > max_bytes as u64 {
            return Err("larger than 16 MiB".to_owned());
        }
        let mut bytes = Vec::new();
        // Files that the kernel makes up, such as those of /proc, claim to be empty.
        let mut file = file.take(length);
        file.read_to_end(&mut bytes).map_err(refused)?;
        Ok(bytes)
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        let outside = || io::Error::from(ErrorKind::NotFound);
        // Symbolic links are resolved here, and only here: one that leads out is refused.
        let real = self.path.join(path).canonicalize()?;
        let below = real.strip_prefix(&self.path).map_err(|_| outside())?;
        // Opening a device could have effects.
        if !real.symlink_metadata()?.is_file() {
            return Err(outside());
        }
        // From the folder down without following links, so that a folder that is replaced by a link in this moment leads
        // nowhere. A pipe that takes the file's place does not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = self.descriptor.try_clone()?;
        let mut names = below.components().peekable();
        while let Some(name) = names.next() {
            let kind = match names.peek() {
                Some(_) => OFlags::DIRECTORY,
                None => OFlags::NOCTTY,
            };
            opened = openat(&opened, name.as_os_str(), flags | kind, Mode::empty())?;
        }
        let file = File::from(opened);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(outside())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with files, and one with a secret beside it.
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
    fn files_below_the_folder_are_read() {
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

    #[test]
    fn files_elsewhere_are_refused_alike() {
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
    fn folder_replaced_by_a_link_leads_nowhere() {
        let (all, folder) = folders();
        std::fs::rename(all.path().join("media"), all.path().join("old")).unwrap();
        std::fs::create_dir(all.path().join("other")).unwrap();
        std::fs::write(all.path().join("other/b.png"), "token").unwrap();
        symlink(all.path().join("other"), all.path().join("media")).unwrap();
        folder.read(Path::new("b.png"), 100).unwrap_err();
    }
}
