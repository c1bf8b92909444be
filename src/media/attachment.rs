//! The files of one inbound message.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::publish::FORWARD_LINK_LIFETIME;
use super::service::Inner;
use super::storage;
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
    pub(super) fn new(
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
        let no_such_file = || MediaError::new(MediaErrorKind::NoSuchFile);
        let file = self.files.get(index).ok_or_else(no_such_file)?;
        Ok(MediaAddress {
            account: self.account,
            message: file.message,
            media: file.sid.ok_or_else(no_such_file)?,
        })
    }

    pub(super) async fn fetch(&self, index: usize) -> Result<MediaStream, MediaError> {
        let address = self.address(index)?;
        let declared = self.files[index].declared.clone();
        self.inner.fetch(address, self.auth_token, declared).await
    }

    /// Deletes a file at Twilio.
    pub(super) async fn delete(&self, index: usize) -> Result<(), MediaError> {
        let address = self.address(index)?;
        let (client, credentials) = self.inner.rest_client(self.account, self.auth_token)?;
        self.inner
            .client
            .delete(client, &credentials, address)
            .await
    }
}

impl Inner {
    fn rest_client(
        &self,
        account: AccountSid,
        auth_token: AuthTokenKind,
    ) -> Result<(&Client, Credentials), MediaError> {
        let client = self.accounts.rest_client(account, auth_token);
        // An account that is not configured has no credentials. No request is made, and the error is that of a rejection.
        client.ok_or_else(|| MediaError::new(MediaErrorKind::Rejected(403)))
    }

    pub(super) async fn fetch(
        &self,
        address: MediaAddress,
        auth_token: AuthTokenKind,
        declared: Option<String>,
    ) -> Result<MediaStream, MediaError> {
        // With `then_delete` the saved file may be the only copy: Twilio's is deleted once the message is handled.
        // Links and later attempts still have to find it.
        if let Some(auto_save) = self
            .auto_save
            .as_ref()
            .filter(|auto_save| auto_save.then_delete)
            && let Some(path) = auto_save.folder.find(address).await
        {
            return storage::open_saved(&path, declared).await;
        }
        let (client, credentials) = self.rest_client(address.account, auth_token)?;
        self.client
            .fetch(client, &credentials, address, declared)
            .await
    }
}

impl Attachments for MessageAttachments {
    fn open(&self, index: usize) -> BoxFuture<'_, Result<MediaStream, MediaError>> {
        Box::pin(self.fetch(index))
    }

    fn save(&self, index: usize, path: PathBuf) -> BoxFuture<'_, Result<SavedMedia, MediaError>> {
        Box::pin(async move { storage::save_stream(self.fetch(index).await?, path, None).await })
    }

    fn link(&self, index: usize) -> BoxFuture<'_, Result<String, MediaError>> {
        Box::pin(async move {
            let address = self.address(index)?;
            let file = LinkSource::Twilio(TwilioMedia {
                account: address.account,
                auth_token: self.auth_token,
                message: address.message,
                media: address.media,
            });
            let declared = self.files[index].declared.clone();
            let inbound = (self.account, self.message);
            let link = self
                .inner
                .create_link(file, declared, inbound, FORWARD_LINK_LIFETIME)
                .await;
            link.map_err(|error| MediaError::with_source(MediaErrorKind::NoLink, error))
        })
    }
}
