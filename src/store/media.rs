//! Media links: URLs of this server for files of replies, and for media of inbound messages.
//!
//! The store has only a hash of a link's secret, so that a reader of the store cannot follow links. Each link expires.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use super::error::StoreError;
use super::future::StoreFuture;
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::signature::AuthTokenKind;

/// Key of a link: the SHA-256 of the secret in its token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkTokenHash(pub [u8; 32]);

/// Length of the secret in a link's token, in bytes.
pub const LINK_SECRET_BYTES: usize = 32;

/// Length of the tag in a link's token, in bytes.
pub const LINK_TAG_BYTES: usize = 16;

/// Prefix of the authenticated text, which separates these tags from any other use of the key.
const TAG_DOMAIN: &[u8] = b"replyhook media link tag 1\0";

/// Key that tags the tokens of a store's links, so that a forged token is rejected without a look-up.
///
/// Each store generates one at random and persists it. All servers on a store use the same key.
#[derive(Clone)]
pub struct LinkSigningKey(Hmac<Sha256>);

impl LinkSigningKey {
    /// Creates the key from its 32 bytes, and computes the hash's key schedule once.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// Returns the tag of a secret: HMAC-SHA256, cut to 16 bytes.
    pub fn tag(&self, secret: &[u8; LINK_SECRET_BYTES]) -> [u8; LINK_TAG_BYTES] {
        let whole = self.over(secret).finalize().into_bytes();
        let mut tag = [0; LINK_TAG_BYTES];
        tag.copy_from_slice(&whole[..LINK_TAG_BYTES]);
        tag
    }

    /// Returns true if this key has tagged the secret. Takes the same time for every wrong tag.
    pub fn verifies(&self, secret: &[u8; LINK_SECRET_BYTES], tag: &[u8; LINK_TAG_BYTES]) -> bool {
        self.over(secret).verify_truncated_left(tag).is_ok()
    }

    fn over(&self, secret: &[u8; LINK_SECRET_BYTES]) -> Hmac<Sha256> {
        self.0.clone().chain_update(TAG_DOMAIN).chain_update(secret)
    }
}

impl fmt::Debug for LinkSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSigningKey(…)")
    }
}

/// Key of a stored file: the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHash(pub [u8; 32]);

/// Length of the chunks that [`MediaLinks::read_chunk`] returns, in bytes. The last one may be shorter.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Link to create.
#[derive(Clone)]
pub struct NewLink {
    /// Hash of the link's token.
    pub token_hash: LinkTokenHash,
    /// File behind the link.
    pub file: LinkSource,
    /// Declared content type of the file.
    pub content_type: Option<String>,
    /// Message that the link was created for. Purging the message's author deletes the link.
    pub message: Option<MessageSid>,
    /// Time from which the link does not resolve.
    pub expires_at: Timestamp,
}

/// File for a new link.
#[derive(Clone, PartialEq, Eq)]
pub enum LinkSource {
    /// Bytes to store. Equal files are stored once.
    Stored(Arc<[u8]>),
    /// Media of an inbound message, which stays at Twilio.
    Twilio(TwilioMedia),
}

/// File behind a resolved link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkTarget {
    /// Stored file, to be read in chunks.
    Stored {
        /// Key of the file.
        hash: FileHash,
        /// Length of the file in bytes.
        length: u64,
    },
    /// Media of an inbound message, which is fetched from Twilio for each request.
    Twilio(TwilioMedia),
}

/// Media of an inbound message at Twilio.
///
/// A handler links to it with [`IncomingMedia::link`](crate::IncomingMedia::link).
#[derive(Clone, PartialEq, Eq)]
pub struct TwilioMedia {
    /// Account that received the message.
    pub account: AccountSid,
    /// Auth token that verified the message's webhook.
    pub auth_token: AuthTokenKind,
    /// Message that contained the media.
    pub message: MessageSid,
    /// SID of the media.
    pub media: MediaSid,
}

/// Resolved link.
#[derive(Clone, PartialEq, Eq)]
pub struct ResolvedLink {
    /// File behind the link.
    pub file: LinkTarget,
    /// Declared content type of the file.
    pub content_type: Option<String>,
}

/// Media links and the files behind them.
///
/// # Errors
/// Every method: [`StoreError`].
pub trait MediaLinks: Send + Sync {
    /// Returns the signing key of this store's links. It is the same on every server and after every restart.
    ///
    /// The key is read when the store is opened, so that a token is checked without a query.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotOpen`](super::error::StoreErrorKind::NotOpen) before the store is open.
    fn link_signing_key(&self) -> Result<&LinkSigningKey, StoreError>;

    /// Stores a link until it expires, and its file if it is not stored yet.
    fn create_link(&self, link: NewLink) -> StoreFuture<'_, ()>;

    /// Returns the file behind a link, if the link exists and has not expired.
    fn resolve_link(
        &self,
        token_hash: LinkTokenHash,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<ResolvedLink>>;

    /// Returns a chunk of a stored file, numbered from 0. Returns `None` after the last one, and if the file is
    /// deleted.
    fn read_chunk(&self, file: FileHash, number: u32) -> StoreFuture<'_, Option<Vec<u8>>>;

    /// Deletes some expired links and files. Returns true if there were any.
    fn expire_links(&self, now: Timestamp) -> StoreFuture<'_, bool>;
}

// Hides the hash too: in a log it would connect requests for one link.
impl fmt::Debug for LinkTokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkTokenHash(…)")
    }
}

impl fmt::Debug for NewLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewLink")
            .field("file", &self.file)
            .field("content_type", &self.content_type)
            .field("message", &self.message)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LinkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(bytes) => write!(f, "Stored({} bytes)", bytes.len()),
            Self::Twilio(file) => file.fmt(f),
        }
    }
}

impl fmt::Debug for TwilioMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TwilioMedia({}, {})", self.message, self.media)
    }
}

impl fmt::Debug for ResolvedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolvedLink")
            .field("file", &self.file)
            .field("content_type", &self.content_type)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_key_that_made_tag_verifies_it() {
        let (key, other) = (LinkSigningKey::new(&[1; 32]), LinkSigningKey::new(&[2; 32]));
        let secret = [7; 32];
        let tag = key.tag(&secret);
        assert!(key.verifies(&secret, &tag));
        assert!(!other.verifies(&secret, &tag));
        assert_eq!(format!("{key:?}"), "LinkSigningKey(…)");
    }
}
