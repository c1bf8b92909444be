//! Resolution of a link's token to its file.

use super::fetched::{FetchedFile, READ_TIMEOUT};
use super::limits::LinkPermit;
use super::service::MediaService;
use super::token;
use crate::handler::MediaError;
use crate::store::{CHUNK_BYTES, FileHash, LinkTarget, StoreError, TwilioMedia};
use crate::twilio::media::MediaAddress;

/// The file behind a link.
pub(crate) enum LinkContent {
    /// A file of a reply, in the store.
    Stored {
        file: StoredFile,
        content_type: Option<String>,
    },
    /// A file of an inbound message, being fetched from Twilio. Its declared type is untrusted.
    Twilio(FetchedFile),
}

/// The reason why a link has no file to serve.
pub(crate) enum LinkError {
    /// The token is invalid, or its link unknown or expired.
    // One variant for all, so that a response cannot tell them apart.
    Unknown,
    /// The limit on requests or on fetches is reached.
    Busy,
    Store(StoreError),
    Fetch(MediaError),
}

/// A file in the store, read chunk by chunk.
pub(crate) struct StoredFile {
    media: MediaService,
    hash: FileHash,
    pub(crate) length: u64,
}

impl StoredFile {
    /// Reads the bytes of `from..to`, at most up to the end of the chunk that `from` is in.
    ///
    /// Returns `None` if the file has expired since the link was resolved.
    pub(crate) async fn read(&self, from: u64, to: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let size = CHUNK_BYTES as u64;
        let index = u32::try_from(from / size).unwrap_or(u32::MAX);
        let Some(mut chunk) = self.media.0.store.read_chunk(self.hash, index).await? else {
            return Ok(None);
        };
        let chunk_start = u64::from(index) * size;
        let offset_in_chunk =
            |position: u64| usize::try_from(position - chunk_start).unwrap_or(usize::MAX);
        chunk.truncate(offset_in_chunk(to));
        chunk.drain(..offset_in_chunk(from).min(chunk.len()));
        // An empty chunk would let the caller's loop read the same offset forever.
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}

impl MediaService {
    /// Resolves a token to its file, and acquires the permit to serve it.
    pub(crate) async fn resolve(
        &self,
        token: &str,
    ) -> Result<(LinkContent, LinkPermit), LinkError> {
        let inner = &self.0;
        // Check the tag first, with the key in memory: a forged token must cost neither a permit nor a query.
        let signing_key = inner.store.link_signing_key();
        let signing_key = signing_key.map_err(LinkError::Store)?;
        let token_hash = token::verify(token, signing_key).ok_or(LinkError::Unknown)?;
        // Acquire the permit before the query, so that it limits queries too.
        let permit = inner
            .limits
            .acquire_request()
            .await
            .ok_or(LinkError::Busy)?;
        let link = inner
            .store
            .resolve_link(token_hash, inner.clock.now())
            .await;
        let link = link.map_err(LinkError::Store)?;
        let link = link.ok_or(LinkError::Unknown)?;
        let content = match link.file {
            LinkTarget::Stored { hash, length } => LinkContent::Stored {
                file: StoredFile {
                    media: self.clone(),
                    hash,
                    length,
                },
                content_type: link.content_type,
            },
            LinkTarget::Twilio(file) => {
                LinkContent::Twilio(self.fetch_from_twilio(file, link.content_type).await?)
            }
        };
        Ok((content, permit))
    }

    async fn fetch_from_twilio(
        &self,
        file: TwilioMedia,
        declared: Option<String>,
    ) -> Result<FetchedFile, LinkError> {
        let inner = &self.0;
        // A second permit on top of the request's. No deadlock: holders of a fetch permit wait for no other permit.
        let permit = inner.limits.acquire_fetch().await.ok_or(LinkError::Busy)?;
        let address = MediaAddress {
            account: file.account,
            message: file.message,
            media: file.media,
        };
        let stream = inner.fetch(address, file.auth_token, declared).await;
        let stream = stream.map_err(LinkError::Fetch)?;
        Ok(FetchedFile::new(stream, permit, READ_TIMEOUT))
    }
}
