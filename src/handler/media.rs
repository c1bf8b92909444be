//! The files of a message, as a handler has them: [`Context::media`](super::Context::media).
//!
//! They lie at Twilio, and are fetched when somebody asks, by an address that is made of SIDs: what the message says of where
//! they are is never called. A file is what a stranger sent: its type is a claim until its bytes were looked at, and even then
//! it is for a program that expects malice. Nothing here unpacks or opens one.
//!
//! At most 16 MiB are read of each, within 30 seconds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};

use super::HandlerError;
use crate::address::Channel;
use crate::error::BoxError;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::TokenSlot;

/// The files of one message, as a context asks for them.
pub(crate) trait Attachments: Send + Sync {
    /// Begins to fetch one.
    fn open(&self, index: usize) -> BoxFuture<'_, Result<MediaStream, MediaError>>;
    /// Fetches one into a file.
    fn save(&self, index: usize, path: PathBuf) -> BoxFuture<'_, Result<SavedMedia, MediaError>>;
    /// Makes a link of ours to one.
    fn link(&self, index: usize) -> BoxFuture<'_, Result<String, MediaError>>;
}

/// What has to do with files on the way of a message.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "the dispatcher asks")
)]
pub(crate) trait Files: Send + Sync {
    /// A message's own.
    fn attachments(&self, message: &InboundMessage, slot: TokenSlot) -> Arc<dyn Attachments>;
    /// Saves a message's files, if that is wished, beside its handler.
    fn keep(&self, message: &InboundMessage, slot: TokenSlot) -> Keeping;
    /// Checks a reply's files, and puts links in the place of those that have none. It answers the message of this account.
    fn publish<'a>(
        &'a self,
        reply: Reply,
        channel: &'a Channel,
        to: (AccountSid, MessageSid),
    ) -> BoxFuture<'a, Result<Reply, HandlerError>>;
}

/// Held for as long as a handler may ask for the files that are being saved: only after that they may be deleted at Twilio.
pub(crate) type Keeping = Option<Box<dyn Send + Sync>>;

/// A file of the message, which nobody has fetched yet.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Context, HandlerError, InboundMessage};
///
/// async fn bot(cx: Context, _message: InboundMessage) -> Result<String, HandlerError> {
///     let file = cx.media(0).bytes().await?;
///     let kind = file.file_type.sniffed.unwrap_or("something else");
///     Ok(format!("{} bytes of {kind}", file.bytes.len()))
/// }
///
/// let bot = TestBot::start(|| App::builder().handler(bot)).await;
/// let ana = bot.whatsapp("+34600000001");
/// let gif = b"GIF89a\x01\0\x01\0\0\0\0;";
/// ana.sends_file("image/gif", gif, "").await.assert_reply("14 bytes of image/gif");
/// # });
/// ```
#[derive(Clone)]
pub struct IncomingMedia {
    of: Option<Arc<dyn Attachments>>,
    index: usize,
}

/// A file while it comes: what is known of its type, and its bytes in pieces of any length.
///
/// ```
/// use replyhook::{HandlerError, IncomingMedia};
///
/// /// Counts without keeping: a file may be as large as 16 MiB.
/// async fn length(file: IncomingMedia) -> Result<usize, HandlerError> {
///     let mut stream = file.stream().await?;
///     let mut length = 0;
///     while let Some(piece) = stream.chunk().await? {
///         length += piece.len();
///     }
///     Ok(length)
/// }
/// # drop(length);
/// ```
pub struct MediaStream {
    file_type: FileType,
    length: Option<u64>,
    begin: Option<Vec<u8>>,
    rest: BoxStream<'static, Result<Vec<u8>, MediaError>>,
}

/// What a file claims to be, and what its first bytes say. Where they differ, somebody lies.
///
/// ```
/// use replyhook::handler::FileType;
///
/// fn is_honest(file: &FileType) -> bool {
///     file.sniffed.is_none() || file.declared.as_deref() == file.sniffed
/// }
/// # let _ = is_honest;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileType {
    /// What the message says: `MediaContentType{N}`.
    pub declared: Option<String>,
    /// What its bytes say; `None` for texts, and what is not known. It is no proof that the rest is as it begins.
    pub sniffed: Option<&'static str>,
    /// How names of such files end, by its bytes; `bin` for what is not known, and for programs and pages.
    pub extension: &'static str,
}

/// A file in memory.
///
/// What [`IncomingMedia::bytes`] gives: see the example of [`IncomingMedia`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceivedMedia {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it is.
    pub file_type: FileType,
}

/// A file on disk.
///
/// What [`IncomingMedia::save`] gives: see the example of [`Context::media`](super::Context::media).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SavedMedia {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub file_type: FileType,
}

/// Why a file is not had. It names no address.
///
/// ```
/// use replyhook::handler::MediaErrorKind;
/// use replyhook::{Context, HandlerError, InboundMessage};
///
/// async fn bot(cx: Context, _message: InboundMessage) -> Result<String, HandlerError> {
///     match cx.media(0).bytes().await {
///         Ok(file) => Ok(format!("{} bytes, thank you.", file.bytes.len())),
///         Err(error) if error.kind() == MediaErrorKind::NoSuchFile => Ok("Send me a file.".to_owned()),
///         Err(error) if error.kind() == MediaErrorKind::TooLarge => Ok("A smaller one, please.".to_owned()),
///         Err(error) => Err(error.into()),
///     }
/// }
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Debug)]
pub struct MediaError {
    kind: MediaErrorKind,
    source: Option<BoxError>,
}

/// What became of a fetch.
///
/// Which of them to answer, and which to pass on: see [`MediaError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaErrorKind {
    /// The message has no such file, or names it in a way that is not Twilio's; or the context is of no message.
    NoSuchFile,
    /// Twilio has no such file, or has it no more.
    Gone,
    /// Twilio did not let us have it: HTTP status.
    Refused(u16),
    /// Twilio sent us somewhere where its files do not lie; `media.allowed_redirect_hosts` adds hosts.
    ForeignHost,
    /// Nobody could be reached, or it broke off.
    Unreachable,
    /// Over 16 MiB.
    TooLarge,
    /// It took over 30 seconds.
    TooSlow,
    /// The folder of `media.save_dir` holds as much as it may.
    Full,
    /// It could not be written.
    Disk,
    /// No link can be made, because the store is away.
    NoLink,
}

impl FileType {
    #[cfg_attr(not(feature = "app"), expect(dead_code, reason = "who fetches looks"))]
    pub(crate) fn new(
        declared: Option<String>,
        sniffed: Option<&'static str>,
        extension: &'static str,
    ) -> Self {
        Self {
            declared,
            sniffed,
            extension,
        }
    }
}

impl SavedMedia {
    #[cfg_attr(not(feature = "app"), expect(dead_code, reason = "who fetches saves"))]
    pub(crate) fn new(path: PathBuf, length: u64, file_type: FileType) -> Self {
        Self {
            path,
            length,
            file_type,
        }
    }
}

impl IncomingMedia {
    pub(super) fn new(of: Option<Arc<dyn Attachments>>, index: usize) -> Self {
        Self { of, index }
    }

    fn of(&self) -> Result<&dyn Attachments, MediaError> {
        let none = || MediaError::new(MediaErrorKind::NoSuchFile);
        self.of.as_deref().ok_or_else(none)
    }

    /// Begins to fetch it; its bytes come piece by piece.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn stream(&self) -> Result<MediaStream, MediaError> {
        self.of()?.open(self.index).await
    }

    /// Fetches it into memory: up to 16 MiB.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn bytes(&self) -> Result<ReceivedMedia, MediaError> {
        let mut stream = self.stream().await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(ReceivedMedia {
            bytes,
            file_type: stream.file_type,
        })
    }

    /// Fetches it into a file, which is there whole or not at all; one of that name is replaced. It is this user's alone to
    /// read. Never make the path of a text that came with the message.
    ///
    /// # Errors
    /// [`MediaError`].
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<SavedMedia, MediaError> {
        let path = path.as_ref().to_owned();
        self.of()?.save(self.index, path).await
    }

    /// A link under `PUBLIC_URL` by which whoever has it gets the file for an hour, without Twilio's credentials.
    ///
    /// # Errors
    /// [`MediaError`] with [`MediaErrorKind::NoSuchFile`] or [`MediaErrorKind::NoLink`].
    pub async fn link(&self) -> Result<String, MediaError> {
        self.of()?.link(self.index).await
    }
}

impl MediaStream {
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "who fetches makes one")
    )]
    pub(crate) fn new(
        file_type: FileType,
        length: Option<u64>,
        begin: Vec<u8>,
        rest: BoxStream<'static, Result<Vec<u8>, MediaError>>,
    ) -> Self {
        Self {
            file_type,
            length,
            begin: Some(begin).filter(|begin| !begin.is_empty()),
            rest,
        }
    }

    /// What it claims to be, and what it begins like.
    pub fn file_type(&self) -> &FileType {
        &self.file_type
    }

    /// How many bytes the whole file has, where that is said before it comes: one that ends earlier ends in an error.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`MediaError`], after which nothing comes.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, MediaError> {
        self.next().await.transpose()
    }
}

impl Stream for MediaStream {
    type Item = Result<Vec<u8>, MediaError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        match self.begin.take() {
            Some(begin) => Poll::Ready(Some(Ok(begin))),
            None => self.rest.poll_next_unpin(cx),
        }
    }
}

impl MediaError {
    pub(crate) fn new(kind: MediaErrorKind) -> Self {
        Self { kind, source: None }
    }

    #[cfg_attr(not(feature = "app"), expect(dead_code, reason = "who fetches fails"))]
    pub(crate) fn with_source(kind: MediaErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What became of the fetch.
    pub fn kind(&self) -> MediaErrorKind {
        self.kind
    }
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            MediaErrorKind::NoSuchFile => "the message has no such file",
            MediaErrorKind::Gone => "Twilio does not have the file",
            MediaErrorKind::Refused(status) => {
                return write!(f, "Twilio does not give the file (HTTP {status})");
            }
            MediaErrorKind::ForeignHost => {
                "Twilio sends us for the file to a host that is none of its own (media.allowed_redirect_hosts allows more)"
            }
            MediaErrorKind::Unreachable => "the file cannot be reached, or broke off",
            MediaErrorKind::TooLarge => "the file is over 16 MiB",
            MediaErrorKind::TooSlow => "the file took over 30 seconds",
            MediaErrorKind::Full => "the folder of media.save_dir is full (media.save_quota_mib)",
            MediaErrorKind::Disk => "the file cannot be written",
            MediaErrorKind::NoLink => "no link to the file can be made: the store is away",
        })
    }
}

impl std::error::Error for MediaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<MediaError> for HandlerError {
    fn from(error: MediaError) -> Self {
        Self::new(error)
    }
}

impl fmt::Debug for IncomingMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingMedia")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MediaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaStream")
            .field("file_type", &self.file_type)
            .finish_non_exhaustive()
    }
}

/// Shows how much, not what.
impl fmt::Debug for ReceivedMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMedia")
            .field("length", &self.bytes.len())
            .field("file_type", &self.file_type)
            .finish_non_exhaustive()
    }
}
