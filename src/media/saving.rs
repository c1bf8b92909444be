//! A file comes to the disk: whole or not at all, nobody else's to read, and no more of them than there is room for.

use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use crate::handler::{MediaError, MediaErrorKind, MediaStream, SavedMedia};
use crate::sid::MessageSid;
use crate::twilio::media::{MediaAddress, sniff};

/// Of a file that is read or written.
const PIECE_BYTES: usize = 64 * 1024;

/// The folder of `media.save_dir`.
pub(crate) struct Folder {
    path: PathBuf,
    most_bytes: u64,
    /// Bytes in it and on their way there, as far as is known; `None` before it was looked at. Never too few: what did not
    /// come, or was deleted since, is found out when there seems to be no room.
    used: Mutex<Option<u64>>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, most_bytes: u64) -> Self {
        Self {
            path,
            most_bytes,
            used: Mutex::new(None),
        }
    }

    /// Saves a file under its SIDs and the end of name that its bytes have.
    pub(super) async fn save(
        &self,
        stream: MediaStream,
        at: MediaAddress,
    ) -> Result<SavedMedia, MediaError> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(&self.path).await.map_err(disk)?;
        let extension = stream.file_type().extension;
        let name = format!("{}-{}.{extension}", at.message, at.media);
        save(stream, self.path.join(name), Some(self)).await
    }

    /// Where a file is that was saved.
    pub(super) async fn find(&self, at: MediaAddress) -> Option<PathBuf> {
        let start = format!("{}-{}.", at.message, at.media);
        let mut entries = fs::read_dir(&self.path).await.ok()?;
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().starts_with(&start) {
                return Some(entry.path());
            }
        }
        None
    }

    /// Makes room for more bytes.
    async fn take(&self, bytes: u64) -> Result<(), MediaError> {
        let mut used = self.used.lock().await;
        let fits = |used: u64| used + bytes <= self.most_bytes;
        let known = match *used {
            Some(known) if fits(known) => known,
            _ => size(&self.path).await.map_err(disk)?,
        };
        if !fits(known) {
            *used = Some(known);
            return Err(MediaError::new(MediaErrorKind::Full));
        }
        *used = Some(known + bytes);
        Ok(())
    }
}

async fn size(folder: &Path) -> std::io::Result<u64> {
    let mut entries = fs::read_dir(folder).await?;
    let mut bytes = 0;
    while let Some(entry) = entries.next_entry().await? {
        // One that is gone meanwhile takes no room.
        bytes += entry.metadata().await.map_or(0, |about| about.len());
    }
    Ok(bytes)
}

/// A file that was saved, as if it came.
pub(super) async fn read(path: &Path, declared: Option<String>) -> Result<MediaStream, MediaError> {
    let mut file = File::open(path).await.map_err(disk)?;
    let length = file.metadata().await.map_err(disk)?.len();
    let begin = piece(&mut file).await?;
    let file_type = sniff(declared, &begin);
    let rest = stream::try_unfold(file, |mut file| async move {
        let piece = piece(&mut file).await?;
        Ok((!piece.is_empty()).then_some((piece, file)))
    });
    Ok(MediaStream::new(
        file_type,
        Some(length),
        begin,
        rest.boxed(),
    ))
}

/// What comes next in a file; nothing at its end.
async fn piece(file: &mut File) -> Result<Vec<u8>, MediaError> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut most = file.take(PIECE_BYTES as u64);
    most.read_to_end(&mut piece).await.map_err(disk)?;
    Ok(piece)
}

/// Writes a file beside its place, and moves it there once it is on the disk. The folder, if it is ours, is asked for room
/// before each piece.
pub(super) async fn save(
    mut stream: MediaStream,
    path: PathBuf,
    folder: Option<&Folder>,
) -> Result<SavedMedia, MediaError> {
    let part = Part::beside(&path)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&part.0).await.map_err(disk)?;
    // Of each file under way so much is in memory, besides what is on the line.
    file.set_max_buf_size(PIECE_BYTES);
    let mut length = 0;
    while let Some(chunk) = stream.chunk().await? {
        if let Some(folder) = folder {
            folder.take(chunk.len() as u64).await?;
        }
        file.write_all(&chunk).await.map_err(disk)?;
        length += chunk.len() as u64;
    }
    file.flush().await.map_err(disk)?;
    file.sync_all().await.map_err(disk)?;
    drop(file);
    fs::rename(&part.0, &path).await.map_err(disk)?;
    sync_folder_of(&path).await.map_err(disk)?;
    Ok(SavedMedia::new(path, length, stream.file_type().clone()))
}

/// A file that is being written. It is gone with whoever writes it.
struct Part(PathBuf);

impl Part {
    fn beside(path: &Path) -> Result<Self, MediaError> {
        let name = path.file_name().ok_or_else(|| {
            MediaError::with_source(MediaErrorKind::Disk, "the path does not end in a name")
        })?;
        let random = getrandom::u64()
            .map_err(|error| MediaError::with_source(MediaErrorKind::Disk, error.to_string()))?;
        let name = format!(".{}.{random:016x}.part", name.to_string_lossy());
        Ok(Self(path.with_file_name(name)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is not there any more where all went well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The name is on the disk too.
async fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder).await?.sync_all().await
}

fn disk(error: std::io::Error) -> MediaError {
    MediaError::with_source(MediaErrorKind::Disk, error)
}

/// The files of a message that `media.save_dir` has kept in `folder`, by name. None where there is no such folder.
///
/// ```
/// use std::path::Path;
///
/// let message = "MM00000000000000000000000000000001".parse()?;
/// let files = replyhook::saved_files(Path::new("no/such/folder"), message)?;
/// assert!(files.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the folder cannot be read.
pub fn saved_files(folder: &Path, message: MessageSid) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let start = format!("{message}-");
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn save(folder: &Folder, number: u64, bytes: usize) -> Result<u64, MediaErrorKind> {
        let stream = MediaStream::new(
            sniff(None, &[]),
            None,
            vec![0; bytes],
            stream::empty().boxed(),
        );
        let at = MediaAddress {
            account: "AC00000000000000000000000000000001".parse().unwrap(),
            message: format!("MM{number:032x}").parse().unwrap(),
            media: "ME00000000000000000000000000000001".parse().unwrap(),
        };
        let saved = folder.save(stream, at).await;
        saved
            .map(|saved| saved.length)
            .map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn what_did_not_fit_or_was_deleted_takes_no_room() {
        let on_disk = tempfile::tempdir().unwrap();
        let folder = Folder::new(on_disk.path().to_owned(), 100);
        assert_eq!(save(&folder, 1, 60).await, Ok(60));
        assert_eq!(save(&folder, 2, 41).await, Err(MediaErrorKind::Full));
        assert_eq!(save(&folder, 3, 40).await, Ok(40));
        assert_eq!(save(&folder, 4, 1).await, Err(MediaErrorKind::Full));
        let first = format!("MM{:032x}-ME{:032x}.bin", 1, 1);
        std::fs::remove_file(on_disk.path().join(first)).unwrap();
        assert_eq!(save(&folder, 4, 1).await, Ok(1));
    }
}
