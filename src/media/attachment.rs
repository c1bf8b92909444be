//! The files of one inbound message.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::publish::FORWARD_LINK;
use super::{Inner, storage};
use crate::handler::{Attachments, MediaError, MediaErrorKind, MediaStream, SavedMedia};
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::signature::AuthTokenKind;
use crate::store::{LinkSource, TwilioMedia};
use crate::twilio::media::MediaAddress;
use crate::twilio::{Client, Credentials};

/// The SIDs that are needed to fetch the files of a message.
// Not the message's `MediaUrl`s: a URL from a request is never called (threat 33). `MediaClient` builds the URL from
// SIDs.
pub(super) struct MessageAttachments {
    inner: Arc<Inner>,
    account: AccountSid,
    pub(super) message: MessageSid,
    auth_token: AuthTokenKind,
    files: Vec<Attachment>,
}

struct Attachment {
    // The message that brought the file: with `reply.debounce_ms` not always the one that is handled.
    message: MessageSid,
    sid: Option<MediaSid>,
    declared: Option<String>,
}

impl MessageAttachments {
    pub(super) fn of(
        inner: Arc<Inner>,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Self {
        let files = message.media.iter().map(|media| Attachment {
            message: media.message_sid,
            sid: media.sid(),
            declared: media.content_type.clone(),
        });
        Self {
            inner,
            account: message.account_sid,
            message: message.message_sid,
            auth_token,
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
        self.inner.fetch(at, self.auth_token, declared).await
    }

    /// Deletes a file at Twilio.
    pub(super) async fn delete(&self, index: usize) -> Result<(), MediaError> {
        let at = self.address(index)?;
        let (client, credentials) = self.inner.caller(self.account, self.auth_token)?;
        self.inner.client.delete(client, &credentials, at).await
    }
}

impl Inner {
    fn caller(
        &self,
        account: AccountSid,
        auth_token: AuthTokenKind,
    ) -> Result<(&Client, Credentials), MediaError> {
        let caller = self.accounts.of(account, auth_token);
        // An account that is not configured has no credentials. No request is made, and the error is that of a rejection.
        caller.ok_or_else(|| MediaError::new(MediaErrorKind::Rejected(403)))
    }

    pub(super) async fn fetch(
        &self,
        at: MediaAddress,
        auth_token: AuthTokenKind,
        declared: Option<String>,
    ) -> Result<MediaStream, MediaError> {
        // With `then_delete` the saved file may be the only copy: Twilio's is deleted once the message is handled.
        // Links and later attempts still have to find it.
        if let Some(keep) = self.auto_save.as_ref().filter(|keep| keep.then_delete)
            && let Some(path) = keep.folder.find(at).await
        {
            return storage::read(&path, declared).await;
        }
        let (client, credentials) = self.caller(at.account, auth_token)?;
        self.client.fetch(client, &credentials, at, declared).await
    }
}

impl Attachments for MessageAttachments {
    fn open(&self, index: usize) -> BoxFuture<'_, Result<MediaStream, MediaError>> {
        Box::pin(self.fetch(index))
    }

    fn save(&self, index: usize, path: PathBuf) -> BoxFuture<'_, Result<SavedMedia, MediaError>> {
        Box::pin(async move { storage::save(self.fetch(index).await?, path, None).await })
    }

    fn link(&self, index: usize) -> BoxFuture<'_, Result<String, MediaError>> {
        Box::pin(async move {
            let at = self.address(index)?;
            let file = LinkSource::Twilio(TwilioMedia {
                account: at.account,
                auth_token: self.auth_token,
                message: at.message,
                media: at.media,
            });
            let declared = self.files[index].declared.clone();
            let to = (self.account, self.message);
            let link = self.inner.link(file, declared, to, FORWARD_LINK).await;
            link.map_err(|error| MediaError::with_source(MediaErrorKind::NoLink, error))
        })
    }
}
