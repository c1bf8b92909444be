//! What there is behind a link of ours, for whoever has it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Media, token};
use crate::handler::{MediaError, MediaStream};
use crate::store::{LinkedFile, StoreError};
use crate::twilio::media::MediaAddress;

/// A file behind a link.
pub(crate) enum Followed {
    /// Here.
    Ours {
        bytes: Arc<[u8]>,
        content_type: Option<String>,
    },
    /// On its way from Twilio. What it is, is said by a stranger.
    AtTwilio(MediaStream),
}

/// Why there is none.
pub(crate) enum NotFollowed {
    /// There is no such link, or not any more.
    Unknown,
    Store(StoreError),
    Fetch(MediaError),
}

/// The right to send one file: each is in memory while it is sent.
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>);

impl Media {
    /// Waits for the right to send a file.
    pub(crate) async fn place(&self) -> Place {
        // It is never closed.
        Place(self.0.sending.clone().acquire_owned().await.ok())
    }

    /// Follows a link by the secret in it.
    pub(crate) async fn follow(&self, secret: &str) -> Result<Followed, NotFollowed> {
        let room = &self.0;
        let key = token::key(secret).ok_or(NotFollowed::Unknown)?;
        let linked = room.store.linked(key, room.clock.now()).await;
        let linked = linked.map_err(NotFollowed::Store)?;
        let linked = linked.ok_or(NotFollowed::Unknown)?;
        match linked.file {
            LinkedFile::Ours(bytes) => Ok(Followed::Ours {
                bytes,
                content_type: linked.content_type,
            }),
            LinkedFile::AtTwilio {
                account,
                slot,
                message,
                media,
            } => {
                let at = MediaAddress {
                    account,
                    message,
                    media,
                };
                let fetched = room.fetch(at, slot, linked.content_type).await;
                fetched.map(Followed::AtTwilio).map_err(NotFollowed::Fetch)
            }
        }
    }
}
