//! Storage of inbound files on disk: whole or not at all, readable by the server's user only, and within a quota.

use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use crate::handler::{MediaError, MediaErrorKind, MediaStream, SavedMedia};
use crate::sid::MessageSid;
use crate::twilio::media::{MediaAddress, sniff};

/// Size of the buffers for reading and writing a file.
const BUFFER_BYTES: usize = 64 * 1024;

/// The folder of `media.save_dir`, with its quota.
pub(crate) struct Folder {
    path: PathBuf,
    max_bytes: u64,
    /// Estimate of the bytes in the folder, with those that are being written; `None` until it is measured.
    // Bytes of saves that failed, and of files that were deleted, stay counted until the folder seems full. It is
    // measured again then.
    used: Mutex<Option<u64>>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            used: Mutex::new(None),
        }
    }

    /// Saves a file, named by its SIDs and the extension of its sniffed type.
    pub(super) async fn save(
        &self,
        stream: MediaStream,
        address: MediaAddress,
    ) -> Result<SavedMedia, MediaError> {
        // 0700: files of users are for the server's user alone. An existing folder keeps its mode.
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(&self.path).await.map_err(disk_error)?;
        // Neither part comes from the message's text, so that a user cannot choose the name.
        let extension = stream.file_type().extension;
        let name = format!("{}-{}.{extension}", address.message, address.media);
        save_stream(stream, self.path.join(name), Some(self)).await
    }

    /// Returns the path of a saved file.
    pub(super) async fn find(&self, address: MediaAddress) -> Option<PathBuf> {
        // Search by prefix, since the extension is known only to the save. Unfinished files begin with a dot.
        let prefix = format!("{}-{}.", address.message, address.media);
        let mut entries = fs::read_dir(&self.path).await.ok()?;
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Some(entry.path());
            }
        }
        None
    }

    /// Reserves bytes of the quota.
    async fn reserve(&self, bytes: u64) -> Result<(), MediaError> {
        // Hold the lock while the folder is measured, so that concurrent saves do not reserve the same bytes twice. A
        // measurement misses what they have reserved and not yet written: some buffers beyond the quota.
        let mut used = self.used.lock().await;
        let fits = |used: u64| used + bytes <= self.max_bytes;
        let used_bytes = match *used {
            Some(used_bytes) if fits(used_bytes) => used_bytes,
            _ => folder_bytes(&self.path).await.map_err(disk_error)?,
        };
        if !fits(used_bytes) {
            *used = Some(used_bytes);
            return Err(MediaError::new(MediaErrorKind::Full));
        }
        *used = Some(used_bytes + bytes);
        Ok(())
    }
}

async fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut entries = fs::read_dir(folder).await?;
    let mut bytes = 0;
    while let Some(entry) = entries.next_entry().await? {
        // A file that was removed since `read_dir` saw it counts 0.
        bytes += entry.metadata().await.map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}

/// Opens a saved file as a stream, in the same form as a fetch from Twilio.
pub(super) async fn open_saved(
    path: &Path,
    declared: Option<String>,
) -> Result<MediaStream, MediaError> {
    let mut file = File::open(path).await.map_err(disk_error)?;
    let length = file.metadata().await.map_err(disk_error)?.len();
    let first_bytes = read_buffer(&mut file).await?;
    let file_type = sniff(declared, &first_bytes);
    let remaining = stream::try_unfold(file, |mut file| async move {
        let bytes = read_buffer(&mut file).await?;
        Ok((!bytes.is_empty()).then_some((bytes, file)))
    });
    Ok(MediaStream::new(
        file_type,
        Some(length),
        first_bytes,
        remaining.boxed(),
    ))
}

/// Reads the next bytes of a file, up to [`BUFFER_BYTES`]; none at its end.
async fn read_buffer(file: &mut File) -> Result<Vec<u8>, MediaError> {
    let mut bytes = Vec::with_capacity(BUFFER_BYTES);
    let mut limited = file.take(BUFFER_BYTES as u64);
    limited.read_to_end(&mut bytes).await.map_err(disk_error)?;
    Ok(bytes)
}

/// Saves a stream to `path`, whole or not at all. With `folder`, its quota applies.
// Written under another name in the same folder, so that the rename is within one file system and atomic.
pub(super) async fn save_stream(
    mut stream: MediaStream,
    path: PathBuf,
    folder: Option<&Folder>,
) -> Result<SavedMedia, MediaError> {
    // Lives until the end of this function: any return before the rename deletes the unfinished file.
    let unfinished = UnfinishedFile::next_to(&path)?;
    let mut options = OpenOptions::new();
    // `create_new` follows no symbolic link that another user may have put there.
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&unfinished.0).await.map_err(disk_error)?;
    // tokio's default of 2 MiB for each file would allow 16 MiB for eight concurrent saves.
    file.set_max_buf_size(BUFFER_BYTES);
    let mut length = 0;
    while let Some(chunk) = stream.chunk().await? {
        // Chunk by chunk, because the announced length may be missing or wrong.
        if let Some(folder) = folder {
            folder.reserve(chunk.len() as u64).await?;
        }
        file.write_all(&chunk).await.map_err(disk_error)?;
        length += chunk.len() as u64;
    }
    // Content, then rename, then folder: after a power failure the name leads to the whole file or does not exist. The
    // file must be durable when this returns, because `then_delete` deletes Twilio's copy next.
    file.flush().await.map_err(disk_error)?;
    file.sync_all().await.map_err(disk_error)?;
    drop(file);
    fs::rename(&unfinished.0, &path).await.map_err(disk_error)?;
    sync_folder_of(&path).await.map_err(disk_error)?;
    Ok(SavedMedia::new(path, length, stream.file_type().clone()))
}

/// The path of an unfinished file, which is deleted on drop.
struct UnfinishedFile(PathBuf);

impl UnfinishedFile {
    fn next_to(path: &Path) -> Result<Self, MediaError> {
        let name = path.file_name().ok_or_else(|| {
            MediaError::with_source(MediaErrorKind::Disk, "the path does not end in a name")
        })?;
        // Random, so that two concurrent saves of one file do not write into the same one.
        let random = getrandom::u64()
            .map_err(|error| MediaError::with_source(MediaErrorKind::Disk, error.to_string()))?;
        let name = format!(".{}.{random:016x}.part", name.to_string_lossy());
        Ok(Self(path.with_file_name(name)))
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // Fails after the rename, when no file has this name, and that is fine. Blocking, since `drop` cannot await.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the entry of a renamed file durable, by syncing its folder.
async fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    // The parent of a bare file name is the empty path, which cannot be opened.
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder).await?.sync_all().await
}

fn disk_error(error: std::io::Error) -> MediaError {
    MediaError::with_source(MediaErrorKind::Disk, error)
}

/// Returns the files of a message in `folder`, which is the setting `media.save_dir`, sorted by name.
///
/// A folder that does not exist has no files.
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
/// [`std::io::Error`] if the folder cannot be read.
pub fn saved_files(folder: &Path, message: MessageSid) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let prefix = format!("{message}-");
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
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
        let address = MediaAddress {
            account: "AC00000000000000000000000000000001".parse().unwrap(),
            message: format!("MM{number:032x}").parse().unwrap(),
            media: "ME00000000000000000000000000000001".parse().unwrap(),
        };
        let saved = folder.save(stream, address).await;
        saved
            .map(|saved| saved.length)
            .map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn rejected_or_deleted_media_uses_no_quota() {
        let on_disk = tempfile::tempdir().unwrap();
        let folder = Folder::new(on_disk.path().to_owned(), 100);
        assert_eq!(save(&folder, 1, 60).await, Ok(60));
        assert_eq!(save(&folder, 2, 41).await, Err(MediaErrorKind::Full));
        // The rejected file took nothing: exactly 40 bytes are left.
        assert_eq!(save(&folder, 3, 40).await, Ok(40));
        assert_eq!(save(&folder, 4, 1).await, Err(MediaErrorKind::Full));
        let first = format!("MM{:032x}-ME{:032x}.bin", 1, 1);
        std::fs::remove_file(on_disk.path().join(first)).unwrap();
        assert_eq!(save(&folder, 4, 1).await, Ok(1));
    }
}
