//! Publication of a reply's files: each is checked, put into the store, and replaced by a link that Twilio fetches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::service::Inner;
use super::token;
use crate::address::Channel;
use crate::reply::{Media as ReplyMedia, MediaRejection, MediaSource, Reply, kinds};
use crate::sid::{AccountSid, MessageSid};
use crate::store::{LinkSource, NewLink};
use crate::twilio::media::sniff;
use replyhook_core::{BoxError, HandlerError};

/// Lifetime of a link to a reply's file.
// Twilio fetches the file when the reply is sent. The outbox retries for a day, and an operator may release a held
// reply after a weekend.
const REPLY_LINK_LIFETIME: SignedDuration = SignedDuration::from_hours(72);
/// Lifetime of a link to an inbound file.
pub(super) const FORWARD_LINK_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The reason why a file of a reply cannot be sent.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("could not read the file {} of the reply: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("a file of the reply has an unknown type; set it with Media::content_type")]
    UnknownType,
    #[error("a file of the reply ({content_type}) cannot be sent: {rejection}")]
    Rejected {
        content_type: String,
        rejection: MediaRejection,
    },
    #[error("could not create a link to a file of the reply: {0}")]
    Store(#[source] BoxError),
}

impl Inner {
    pub(super) async fn publish(
        &self,
        mut reply: Reply,
        channel: &Channel,
        inbound: (AccountSid, MessageSid),
    ) -> Result<Reply, HandlerError> {
        for message in reply.messages_mut() {
            let mut message_bytes = 0;
            for media in message.media_mut() {
                let declared_type = media.declared_type().map(str::to_owned);
                // Awaited only below, where a file takes memory. `ok` hides no error: the semaphore is never closed.
                let permit = self.publish_permits.acquire();
                let (bytes, _permit) = match media.source() {
                    // A URL is sent as it is. Its size is unknown, and Twilio will check it.
                    MediaSource::Url(url) => {
                        let by_extension = media.type_from_extension();
                        let content_type = declared_type.as_deref().or(by_extension);
                        check_file(channel, content_type, None)?;
                        warn_if_uncertain(channel, content_type, Some(url), inbound.1);
                        continue;
                    }
                    MediaSource::Bytes(bytes) => (bytes.clone(), permit.await.ok()),
                    MediaSource::File(path) => {
                        // Acquire before reading the file, which is what takes the memory.
                        let permit = permit.await.ok();
                        (read_file(path).await?, permit)
                    }
                };
                // The declared type wins over the file name, and the file name over the first bytes.
                let content_type = declared_type
                    .or_else(|| media.type_from_extension().map(str::to_owned))
                    .or_else(|| sniff(None, &bytes).sniffed.map(str::to_owned));
                let content_type =
                    content_type.ok_or_else(|| handler_error(PublishError::UnknownType))?;
                // Twilio's limit for MMS applies to all files of a message together.
                message_bytes += bytes.len();
                let limited_bytes = if *channel == Channel::Sms {
                    message_bytes
                } else {
                    bytes.len()
                };
                check_file(channel, Some(&content_type), Some(limited_bytes))?;
                warn_if_uncertain(channel, Some(&content_type), None, inbound.1);
                // Only a warning: Twilio's pages name 5 MiB and 16 MiB for WhatsApp.
                if *channel == Channel::WhatsApp && bytes.len() > kinds::MAX_MMS_BYTES {
                    tracing::warn!(
                        message_sid = %inbound.1,
                        bytes = bytes.len(),
                        content_type,
                        "a file of the reply is over 5 MiB: WhatsApp may reject it (63034)"
                    );
                }
                // Store the file before the reply: the reply must never be saved with a link that does not exist.
                let link_content_type = Some(content_type.clone());
                let url = self
                    .create_link(
                        LinkSource::Stored(bytes),
                        link_content_type,
                        inbound,
                        REPLY_LINK_LIFETIME,
                    )
                    .await;
                let url = url.map_err(|source| handler_error(PublishError::Store(source)))?;
                *media = ReplyMedia::url(url).content_type(content_type);
            }
        }
        Ok(reply)
    }

    /// Creates a link on behalf of a message, stores it, and returns its URL.
    pub(super) async fn create_link(
        &self,
        file: LinkSource,
        content_type: Option<String>,
        (account, message): (AccountSid, MessageSid),
        lifetime: SignedDuration,
    ) -> Result<String, BoxError> {
        let signing_key = self.store.link_signing_key()?;
        let (token, token_hash) = token::create(signing_key).map_err(|error| error.to_string())?;
        let expires_at = self.clock.now().checked_add(lifetime);
        let link = NewLink {
            token_hash,
            file,
            content_type,
            // The link is deleted with the message's author, by `replyhook purge`.
            message: Some(message),
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
        };
        self.store.create_link(link).await?;
        let base = self.accounts.public_url(account);
        Ok(base.endpoint(&format!("/media/{token}")))
    }
}

/// Rejects a file that Twilio would reject, or accept and not deliver.
// Here and not at Twilio: the handler's author sees the error, and the attempt fails before anything is sent.
fn check_file(
    channel: &Channel,
    content_type: Option<&str>,
    length: Option<usize>,
) -> Result<(), HandlerError> {
    let max_bytes = kinds::max_bytes(channel);
    let rejection = match (content_type, length) {
        (Some(content_type), _) if !kinds::accepts_type(channel, content_type) => {
            MediaRejection::Type
        }
        (_, Some(0)) => MediaRejection::Empty,
        (_, Some(length)) if length > max_bytes => MediaRejection::Size { max_bytes, length },
        _ => return Ok(()),
    };
    let content_type = content_type.unwrap_or_default().to_owned();
    Err(handler_error(PublishError::Rejected {
        content_type,
        rejection,
    }))
}

/// Logs a file that Twilio accepts and WhatsApp may reject. Only a warning: Twilio's pages differ.
fn warn_if_uncertain(
    channel: &Channel,
    content_type: Option<&str>,
    url: Option<&str>,
    message_sid: MessageSid,
) {
    if *channel != Channel::WhatsApp {
        return;
    }
    let content_type = content_type.unwrap_or_default();
    if kinds::is_uncertain_on_whatsapp(content_type) {
        tracing::warn!(
            %message_sid,
            content_type,
            "WhatsApp may reject a file of the reply after Twilio has accepted it (63019, 63021): Twilio does not list its type for WhatsApp"
        );
    } else if url.is_some_and(kinds::is_often_mislabeled) {
        tracing::warn!(
            %message_sid,
            content_type,
            "WhatsApp may reject a file of the reply: Twilio accepts .opus only from a web server that sends it as audio/ogg"
        );
    }
}

fn handler_error(error: PublishError) -> HandlerError {
    HandlerError::new(error)
}

/// Reads a file from disk.
async fn read_file(path: &Path) -> Result<Arc<[u8]>, HandlerError> {
    let read_error = |source| {
        let path = path.to_owned();
        handler_error(PublishError::Read { path, source })
    };
    let metadata = tokio::fs::metadata(path).await.map_err(read_error)?;
    // A pipe or a device may never end.
    if !metadata.is_file() {
        return Err(read_error(std::io::Error::other(
            "it is not a regular file",
        )));
    }
    // Check the size first: a file that no channel accepts is not read into memory.
    if metadata.len() > kinds::MAX_BYTES as u64 {
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let max_bytes = kinds::MAX_BYTES;
        return Err(handler_error(PublishError::Rejected {
            content_type: path.display().to_string(),
            rejection: MediaRejection::Size { max_bytes, length },
        }));
    }
    let bytes = tokio::fs::read(path).await.map_err(read_error)?;
    Ok(bytes.into())
}
