//! A reply's own files become links: checked as its channel takes them, put into the store, and named by a URL of ours that
//! Twilio fetches.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Inner, token};
use crate::address::Channel;
use crate::error::{BoxError, HandlerError};
use crate::reply::{Media as ReplyMedia, MediaRefusal, MediaSource, Reply, kinds};
use crate::sid::{AccountSid, MessageSid};
use crate::store::{NewFile, NewLink};
use crate::twilio::media::sniff;

/// How long Twilio may fetch a reply's file: a reply by REST is tried for a day, and may be released by hand after a
/// weekend.
const REPLY_LINK: SignedDuration = SignedDuration::from_hours(72);
/// How long a link to what came lasts.
pub(super) const FORWARD_LINK: SignedDuration = SignedDuration::from_hours(1);

/// Why a reply's file does not go out.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("a file of the reply cannot be read: {0}")]
    Read(#[source] std::io::Error),
    #[error("a file of the reply is not known by its type: name it with Media::content_type")]
    UnknownType,
    #[error("a file of the reply ({content_type}) cannot be sent: {refusal}")]
    Refused {
        content_type: String,
        refusal: MediaRefusal,
    },
    #[error("a file of the reply cannot be offered: {0}")]
    Store(#[source] BoxError),
}

impl Inner {
    pub(super) async fn publish(
        &self,
        mut reply: Reply,
        channel: &Channel,
        to: (AccountSid, MessageSid),
    ) -> Result<Reply, HandlerError> {
        for said in reply.messages_mut() {
            let mut length = 0;
            for media in &mut said.media {
                let stated = media.stated_type().map(str::to_owned);
                // Waited for by what takes memory alone, and never closed.
                let place = self.publishing.acquire();
                let (bytes, _place) = match media.source() {
                    MediaSource::Url(_) => {
                        check(channel, stated.as_deref(), None)?;
                        continue;
                    }
                    MediaSource::Bytes(bytes) => (bytes.clone(), place.await.ok()),
                    MediaSource::File(path) => {
                        let place = place.await.ok();
                        (read(path).await?, place)
                    }
                };
                let content_type = stated
                    .or_else(|| media.type_by_name().map(str::to_owned))
                    .or_else(|| sniff(None, &bytes).sniffed.map(str::to_owned));
                let content_type = content_type.ok_or_else(|| error(PublishError::UnknownType))?;
                // All files of an MMS together.
                length += bytes.len();
                let counted = if *channel == Channel::Sms {
                    length
                } else {
                    bytes.len()
                };
                check(channel, Some(&content_type), Some(counted))?;
                if *channel == Channel::WhatsApp && bytes.len() > kinds::MOST_MMS_BYTES {
                    tracing::warn!(
                        message_sid = %to.1,
                        bytes = bytes.len(),
                        content_type,
                        "a file of the reply is over 5 MiB: WhatsApp may refuse it (63034)"
                    );
                }
                let known = Some(content_type.clone());
                let url = self.link(NewFile::Ours(bytes), known, to, REPLY_LINK).await;
                let url = url.map_err(|source| error(PublishError::Store(source)))?;
                *media = ReplyMedia::url(url).content_type(content_type);
            }
        }
        Ok(reply)
    }

    /// Makes a link, on behalf of a message, and keeps it.
    pub(super) async fn link(
        &self,
        file: NewFile,
        content_type: Option<String>,
        (account, message): (AccountSid, MessageSid),
        lasts: SignedDuration,
    ) -> Result<String, BoxError> {
        let signing_key = self.store.link_signing_key()?;
        let (token, key) = token::new(signing_key).map_err(|error| error.to_string())?;
        let expires_at = self.clock.now().checked_add(lasts);
        let link = NewLink {
            key,
            file,
            content_type,
            message: Some(message),
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
        };
        self.store.offer(link).await?;
        let base = self.accounts.public_url(account);
        Ok(base.endpoint(&format!("/media/{token}")))
    }
}

/// What Twilio would refuse, or take and then not deliver, is refused here and at once.
fn check(
    channel: &Channel,
    content_type: Option<&str>,
    length: Option<usize>,
) -> Result<(), HandlerError> {
    let most = kinds::most_bytes(channel);
    let refusal = match (content_type, length) {
        (Some(content_type), _) if !kinds::takes_type(channel, content_type) => MediaRefusal::Type,
        (_, Some(0)) => MediaRefusal::Empty,
        (_, Some(length)) if length > most => MediaRefusal::Size { most, length },
        _ => return Ok(()),
    };
    let content_type = content_type.unwrap_or_default().to_owned();
    Err(error(PublishError::Refused {
        content_type,
        refusal,
    }))
}

fn error(error: PublishError) -> HandlerError {
    HandlerError::new(error)
}

/// A file of this machine. What is larger than any channel takes is not read.
async fn read(path: &Path) -> Result<Arc<[u8]>, HandlerError> {
    let unread = |source| error(PublishError::Read(source));
    let about = tokio::fs::metadata(path).await.map_err(unread)?;
    if !about.is_file() {
        return Err(unread(std::io::Error::other("it is no file")));
    }
    if about.len() > kinds::MOST_BYTES as u64 {
        let length = usize::try_from(about.len()).unwrap_or(usize::MAX);
        let most = kinds::MOST_BYTES;
        return Err(error(PublishError::Refused {
            content_type: "a file on disk".to_owned(),
            refusal: MediaRefusal::Size { most, length },
        }));
    }
    let bytes = tokio::fs::read(path).await.map_err(unread)?;
    Ok(bytes.into())
}
