//! The file behind a link, for everyone who has the link.

use super::fetched::{FetchedFile, READ_TIMEOUT};
use super::limits::LinkPermit;
use super::{Media, token};
use crate::handler::MediaError;
use crate::store::{FileAtTwilio, FileHash, LinkedFile, PIECE_BYTES, StoreError};
use crate::twilio::media::MediaAddress;

/// A file behind a link.
pub(crate) enum Followed {
    /// Here.
    Ours {
        file: OurFile,
        content_type: Option<String>,
    },
    /// On its way from Twilio. What it is, is said by a stranger.
    AtTwilio(FetchedFile),
}

/// Why there is none.
pub(crate) enum NotFollowed {
    /// There is no such link, or not any more.
    Unknown,
    /// As many files are being read as may be.
    Busy,
    Store(StoreError),
    Fetch(MediaError),
}

/// A file in the store, of which a piece at a time is in memory.
pub(crate) struct OurFile {
    media: Media,
    hash: FileHash,
    pub(crate) length: u64,
}

impl OurFile {
    /// Its bytes from one to before another, as far as one piece has them; nothing where the file is gone meanwhile.
    pub(crate) async fn read(&self, from: u64, to: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let size = PIECE_BYTES as u64;
        let number = u32::try_from(from / size).unwrap_or(u32::MAX);
        let Some(mut piece) = self.media.0.store.piece(self.hash, number).await? else {
            return Ok(None);
        };
        let begins = u64::from(number) * size;
        let within = |at: u64| usize::try_from(at - begins).unwrap_or(usize::MAX);
        piece.truncate(within(to));
        piece.drain(..within(from).min(piece.len()));
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

impl Media {
    /// Follows a link by its token, and takes a place among those who read files. A token that this store has not made is
    /// refused before that, without asking the store.
    pub(crate) async fn follow(&self, token: &str) -> Result<(Followed, LinkPermit), NotFollowed> {
        let room = &self.0;
        let signing_key = room.store.link_signing_key();
        let signing_key = signing_key.map_err(NotFollowed::Store)?;
        let key = token::verified(token, signing_key).ok_or(NotFollowed::Unknown)?;
        let permit = room.limits.request().await.ok_or(NotFollowed::Busy)?;
        let linked = room.store.linked(key, room.clock.now()).await;
        let linked = linked.map_err(NotFollowed::Store)?;
        let linked = linked.ok_or(NotFollowed::Unknown)?;
        let followed = match linked.file {
            LinkedFile::Ours { hash, length } => Followed::Ours {
                file: OurFile {
                    media: self.clone(),
                    hash,
                    length,
                },
                content_type: linked.content_type,
            },
            LinkedFile::AtTwilio(file) => {
                Followed::AtTwilio(self.fetch_linked(file, linked.content_type).await?)
            }
        };
        Ok((followed, permit))
    }

    async fn fetch_linked(
        &self,
        file: FileAtTwilio,
        declared: Option<String>,
    ) -> Result<FetchedFile, NotFollowed> {
        let room = &self.0;
        let permit = room.limits.fetch().await.ok_or(NotFollowed::Busy)?;
        let at = MediaAddress {
            account: file.account,
            message: file.message,
            media: file.media,
        };
        let stream = room.fetch(at, file.slot, declared).await;
        let stream = stream.map_err(NotFollowed::Fetch)?;
        Ok(FetchedFile::new(stream, permit, READ_TIMEOUT))
    }
}
