//! Files of an inbound message, as a handler gets them from [`Context::media`](super::Context::media).
//!
//! Files are stored at Twilio and fetched when the handler asks for them. The URL is built from SIDs; the `MediaUrl` of
//! the message is never called. A file is untrusted input. Its declared type is a claim, and its sniffed type describes
//! only its first bytes, so process it with a program that expects hostile files. Nothing here unpacks or opens one.
//!
//! A fetch reads at most 16 MiB, in up to five attempts of at most 30 seconds each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};

use crate::address::Channel;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;
use replyhook_core::BoxError;
use replyhook_core::HandlerError;

/// The files of one message, as a context uses them.
// A trait, because the module `media` is only compiled with the feature `app`, and handlers also without it.
pub(crate) trait Attachments: Send + Sync {
    /// Starts to fetch a file.
    fn open(&self, index: usize) -> BoxFuture<'_, Result<MediaStream, MediaError>>;
    /// Fetches a file and saves it to disk.
    fn save(&self, index: usize, path: PathBuf) -> BoxFuture<'_, Result<SavedMedia, MediaError>>;
    /// Creates a link to a file, under the server's own URL.
    fn link(&self, index: usize) -> BoxFuture<'_, Result<String, MediaError>>;
}

/// The media functions that the dispatcher needs for each message and its reply.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "the dispatcher calls it")
)]
pub(crate) trait Files: Send + Sync {
    /// Returns the files of a message. `auth_token` is the token that verified it.
    fn attachments(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Arc<dyn Attachments>;
    /// Starts to save a message's files concurrently with its handler, if `media.save_dir` is set.
    fn auto_save(&self, message: &InboundMessage, auth_token: AuthTokenKind) -> SaveGuard;
    /// Checks the files of a reply against the limits of its channel, and replaces files that have no URL by links.
    ///
    /// `to` is the message that the reply is to.
    fn publish<'a>(
        &'a self,
        reply: Reply,
        channel: &'a Channel,
        to: (AccountSid, MessageSid),
    ) -> BoxFuture<'a, Result<Reply, HandlerError>>;
}

/// A guard that the dispatcher holds while a handler may fetch the files that are being saved.
///
/// Files are deleted at Twilio only after it is dropped.
pub(crate) type SaveGuard = Option<Box<dyn Send + Sync>>;

/// A file of the message, which is fetched when a method asks for it.
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
    attachments: Option<Arc<dyn Attachments>>,
    index: usize,
}

/// A file while it is fetched: its type, and its bytes in chunks of any length.
///
/// ```
/// use replyhook::{HandlerError, IncomingMedia};
///
/// /// Counts the bytes without keeping them: a file may have 16 MiB.
/// async fn length(file: IncomingMedia) -> Result<usize, HandlerError> {
///     let mut stream = file.stream().await?;
///     let mut length = 0;
///     while let Some(chunk) = stream.chunk().await? {
///         length += chunk.len();
///     }
///     Ok(length)
/// }
/// # drop(length);
/// ```
pub struct MediaStream {
    file_type: FileType,
    length: Option<u64>,
    // The bytes that were read to sniff the type. They are the first chunk.
    first_chunk: Option<Vec<u8>>,
    remaining: BoxStream<'static, Result<Vec<u8>, MediaError>>,
}

/// The declared and the sniffed type of a file.
///
/// If they differ, the declared type may be false.
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
    /// The type that the message declares: `MediaContentType{N}`.
    pub declared: Option<String>,
    /// The type by the first bytes; `None` for texts and unknown types. It does not prove that the rest is of that
    /// type.
    pub sniffed: Option<&'static str>,
    /// The file name extension by the first bytes; `bin` for unknown types, programs and web pages.
    pub extension: &'static str,
}

/// A file in memory, from [`IncomingMedia::bytes`].
///
/// See [`IncomingMedia`] for an example.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceivedMedia {
    /// The whole content.
    pub bytes: Vec<u8>,
    /// The declared and the sniffed type.
    pub file_type: FileType,
}

/// A file on disk, from [`IncomingMedia::save`].
///
/// See [`Context::media`](super::Context::media) for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SavedMedia {
    /// The path of the file.
    pub path: PathBuf,
    /// The size in bytes.
    pub length: u64,
    /// The declared and the sniffed type.
    pub file_type: FileType,
}

/// The reason why a file could not be fetched, saved or linked. Its text and its sources contain no URL.
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

/// The kind of a [`MediaError`].
///
/// See [`MediaError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaErrorKind {
    /// The message has no file with this index, or its `MediaUrl` has no SID; or the context has no message.
    NoSuchFile,
    /// Twilio does not have the file, or has deleted it.
    Gone,
    /// Twilio rejected the request with this HTTP status.
    Rejected(u16),
    /// Twilio redirected to a host that is not allowed; `media.allowed_redirect_hosts` allows more.
    ForeignHost,
    /// The connection could not be opened, or broke off.
    Unreachable,
    /// The file is larger than 16 MiB.
    TooLarge,
    /// An attempt to fetch the file took longer than 30 seconds. No further attempt follows.
    TooSlow,
    /// The folder of `media.save_dir` has reached `media.save_quota_mib`.
    Full,
    /// The file could not be read from disk or written to it.
    Disk,
    /// The link could not be created, because the store is unavailable.
    NoLink,
}

impl FileType {
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the media client sniffs types")
    )]
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
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the media module saves files")
    )]
    pub(crate) fn new(path: PathBuf, length: u64, file_type: FileType) -> Self {
        Self {
            path,
            length,
            file_type,
        }
    }
}

impl IncomingMedia {
    pub(super) fn new(attachments: Option<Arc<dyn Attachments>>, index: usize) -> Self {
        Self { attachments, index }
    }

    fn attachments(&self) -> Result<&dyn Attachments, MediaError> {
        let none = || MediaError::new(MediaErrorKind::NoSuchFile);
        self.attachments.as_deref().ok_or_else(none)
    }

    /// Starts to fetch the file, and returns its bytes as a stream.
    ///
    /// # Errors
    /// [`MediaError`] if the file cannot be fetched.
    pub async fn stream(&self) -> Result<MediaStream, MediaError> {
        self.attachments()?.open(self.index).await
    }

    /// Fetches the file into memory: up to 16 MiB.
    ///
    /// # Errors
    /// [`MediaError`] if the file cannot be fetched.
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

    /// Fetches the file and saves it to disk, whole or not at all.
    ///
    /// A file of the same name is replaced. Only the server's user may read the new one (mode 0600). Never build the
    /// path from a text of the message.
    ///
    /// # Errors
    /// [`MediaError`] if the file cannot be fetched or written.
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<SavedMedia, MediaError> {
        let path = path.as_ref().to_owned();
        self.attachments()?.save(self.index, path).await
    }

    /// Creates a link under `PUBLIC_URL` that serves the file for one hour.
    ///
    /// Any client that has the link gets the file, without Twilio's credentials.
    ///
    /// # Errors
    /// [`MediaError`] with [`MediaErrorKind::NoSuchFile`] or [`MediaErrorKind::NoLink`].
    pub async fn link(&self) -> Result<String, MediaError> {
        self.attachments()?.link(self.index).await
    }
}

impl MediaStream {
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the media module opens streams")
    )]
    pub(crate) fn new(
        file_type: FileType,
        length: Option<u64>,
        first_chunk: Vec<u8>,
        remaining: BoxStream<'static, Result<Vec<u8>, MediaError>>,
    ) -> Self {
        Self {
            file_type,
            length,
            // No empty chunk: a stream of an empty file ends immediately.
            first_chunk: Some(first_chunk).filter(|first_chunk| !first_chunk.is_empty()),
            remaining,
        }
    }

    /// Returns the declared and the sniffed type of the file.
    pub fn file_type(&self) -> &FileType {
        &self.file_type
    }

    /// Returns the size of the whole file in bytes, if it is known in advance. A stream that ends earlier ends in an
    /// error.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the next chunk; `None` at the end.
    ///
    /// # Errors
    /// [`MediaError`] if the fetch fails. The stream ends with it.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, MediaError> {
        self.next().await.transpose()
    }
}

impl Stream for MediaStream {
    type Item = Result<Vec<u8>, MediaError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        match self.first_chunk.take() {
            Some(first_chunk) => Poll::Ready(Some(Ok(first_chunk))),
            None => self.remaining.poll_next_unpin(cx),
        }
    }
}

impl MediaError {
    pub(crate) fn new(kind: MediaErrorKind) -> Self {
        Self { kind, source: None }
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the media module has such sources")
    )]
    pub(crate) fn with_source(kind: MediaErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> MediaErrorKind {
        self.kind
    }
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            MediaErrorKind::NoSuchFile => "the message has no such file",
            MediaErrorKind::Gone => "Twilio does not have the file",
            MediaErrorKind::Rejected(status) => {
                return write!(f, "Twilio rejected the request for the file (HTTP {status})");
            }
            MediaErrorKind::ForeignHost => {
                "Twilio redirected the request for the file to a host that is not allowed; media.allowed_redirect_hosts allows more"
            }
            MediaErrorKind::Unreachable => {
                "the connection to fetch the file could not be opened, or broke off"
            }
            MediaErrorKind::TooLarge => "the file is larger than 16 MiB",
            MediaErrorKind::TooSlow => "an attempt to fetch the file took longer than 30 seconds",
            MediaErrorKind::Full => {
                "the folder of media.save_dir is full; delete files, or raise media.save_quota_mib"
            }
            MediaErrorKind::Disk => "the file cannot be read from disk or written to it",
            MediaErrorKind::NoLink => {
                "the link to the file could not be created: the store is unavailable"
            }
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

// Only the length: a log must not contain what a user sent.
impl fmt::Debug for ReceivedMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMedia")
            .field("length", &self.bytes.len())
            .field("file_type", &self.file_type)
            .finish_non_exhaustive()
    }
}
