//! The files of one message.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::publishing::FORWARD_LINK;
use super::{Inner, saving};
use crate::handler::{Attachments, MediaError, MediaErrorKind, MediaStream, SavedMedia};
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::signature::TokenSlot;
use crate::store::{FileAtTwilio, NewFile};
use crate::twilio::media::MediaAddress;
use crate::twilio::{Client, Credentials};

/// What is needed of a message to ask for its files: SIDs, and no address that it gives.
pub(super) struct Attached {
    room: Arc<Inner>,
    account: AccountSid,
    pub(super) message: MessageSid,
    slot: TokenSlot,
    files: Vec<AttachedFile>,
}

struct AttachedFile {
    message: MessageSid,
    sid: Option<MediaSid>,
    declared: Option<String>,
}

impl Attached {
    pub(super) fn of(room: Arc<Inner>, message: &InboundMessage, slot: TokenSlot) -> Self {
        let files = message.media.iter().map(|media| AttachedFile {
            message: media.message_sid,
            sid: media.sid(),
            declared: media.content_type.clone(),
        });
        Self {
            room,
            account: message.account_sid,
            message: message.message_sid,
            slot,
            files: files.collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn address(&self, index: usize) -> Result<MediaAddress, MediaError> {
        let none = || MediaError::new(MediaErrorKind::NoSuchFile);
        let file = self.files.get(index).ok_or_else(none)?;
        Ok(MediaAddress {
            account: self.account,
            message: file.message,
            media: file.sid.ok_or_else(none)?,
        })
    }

    pub(super) async fn fetch(&self, index: usize) -> Result<MediaStream, MediaError> {
        let at = self.address(index)?;
        let declared = self.files[index].declared.clone();
        self.room.fetch(at, self.slot, declared).await
    }

    /// Deletes one at Twilio.
    pub(super) async fn delete(&self, index: usize) -> Result<(), MediaError> {
        let at = self.address(index)?;
        let (client, credentials) = self.room.caller(self.account, self.slot)?;
        self.room.client.delete(client, &credentials, at).await
    }
}

impl Inner {
    fn caller(
        &self,
        account: AccountSid,
        slot: TokenSlot,
    ) -> Result<(&Client, Credentials), MediaError> {
        let caller = self.accounts.of(account, slot);
        caller.ok_or_else(|| MediaError::new(MediaErrorKind::Refused(403)))
    }

    pub(super) async fn fetch(
        &self,
        at: MediaAddress,
        slot: TokenSlot,
        declared: Option<String>,
    ) -> Result<MediaStream, MediaError> {
        // Once a message was handled it may be nowhere else.
        if let Some(keep) = self.keep.as_ref().filter(|keep| keep.then_delete)
            && let Some(path) = keep.folder.find(at).await
        {
            return saving::read(&path, declared).await;
        }
        let (client, credentials) = self.caller(at.account, slot)?;
        self.client.fetch(client, &credentials, at, declared).await
    }
}

impl Attachments for Attached {
    fn open(&self, index: usize) -> BoxFuture<'_, Result<MediaStream, MediaError>> {
        Box::pin(self.fetch(index))
    }

    fn save(&self, index: usize, path: PathBuf) -> BoxFuture<'_, Result<SavedMedia, MediaError>> {
        Box::pin(async move { saving::save(self.fetch(index).await?, path, None).await })
    }

    fn link(&self, index: usize) -> BoxFuture<'_, Result<String, MediaError>> {
        Box::pin(async move {
            let at = self.address(index)?;
            let file = NewFile::AtTwilio(FileAtTwilio {
                account: at.account,
                slot: self.slot,
                message: at.message,
                media: at.media,
            });
            let declared = self.files[index].declared.clone();
            let to = (self.account, self.message);
            let made = self.room.link(file, declared, to, FORWARD_LINK).await;
            made.map_err(|error| MediaError::with_source(MediaErrorKind::NoLink, error))
        })
    }
}
