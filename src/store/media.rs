//! Files behind links of ours: what a reply takes along, and what came and is handed on.
//!
//! A link is known by the hash of the secret in it, so that whoever reads the store cannot follow one. It ends at its time.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use super::{Outcome, StoreError};
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::signature::TokenSlot;

/// What a link is known by: the SHA-256 of the secret in it.
///
/// Of a link: see [`MediaLinks`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkKey(pub [u8; 32]);

/// Bytes of the secret in a link's token.
pub const LINK_SECRET_BYTES: usize = 32;

/// Bytes of the tag in a link's token.
pub const LINK_TAG_BYTES: usize = 16;

/// Separates these tags from anything else that the key might authenticate one day.
const TAG_DOMAIN: &[u8] = b"replyhook media link tag 1\0";

/// The key that tags the tokens of a store's links, so that a forged token is refused without a look-up.
///
/// Each store makes one at random, keeps it in a table of its own, and gives it to every machine that opens it.
///
/// ```
/// use replyhook::store::LinkSigningKey;
///
/// let (key, other) = (LinkSigningKey::new(&[1; 32]), LinkSigningKey::new(&[2; 32]));
/// let secret = [7; 32];
/// let tag = key.tag(&secret);
/// assert!(key.verifies(&secret, &tag));
/// assert!(!other.verifies(&secret, &tag));
/// assert_eq!(format!("{key:?}"), "LinkSigningKey(…)");
/// ```
#[derive(Clone)]
pub struct LinkSigningKey(Hmac<Sha256>);

impl LinkSigningKey {
    /// Creates the key from its 32 bytes, with the hash's key schedule done once.
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

    /// Returns whether this key has tagged the secret. Takes the same time for every wrong tag.
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

/// What a file of ours is known by: the SHA-256 of its bytes.
///
/// Of a file: see [`MediaLinks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHash(pub [u8; 32]);

/// How much of a file [`MediaLinks::piece`] gives at once; the last piece may be shorter.
pub const PIECE_BYTES: usize = 256 * 1024;

/// A link to be kept.
///
/// Kept: see [`MediaLinks`].
#[derive(Clone)]
pub struct NewLink {
    /// What it is known by.
    pub key: LinkKey,
    /// What it leads to.
    pub file: NewFile,
    /// What that is, as far as is said.
    pub content_type: Option<String>,
    /// The message on whose behalf it is made: it is forgotten with its author.
    pub message: Option<MessageSid>,
    /// From then on it leads nowhere.
    pub expires_at: Timestamp,
}

/// What a link is to lead to.
///
/// Kept: see [`MediaLinks`].
#[derive(Clone, PartialEq, Eq)]
pub enum NewFile {
    /// These bytes. Equal ones are kept once.
    Ours(Arc<[u8]>),
    /// A file of a message.
    AtTwilio(FileAtTwilio),
}

/// What a link leads to.
///
/// Found again: see [`MediaLinks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkedFile {
    /// Bytes that are here, in pieces.
    Ours {
        /// What they are known by.
        hash: FileHash,
        /// How many there are.
        length: u64,
    },
    /// A file of a message, which is fetched from Twilio each time.
    AtTwilio(FileAtTwilio),
}

/// A file of a message, as Twilio has it.
///
/// A handler links to one with [`IncomingMedia::link`](crate::IncomingMedia::link).
#[derive(Clone, PartialEq, Eq)]
pub struct FileAtTwilio {
    /// Whose it is.
    pub account: AccountSid,
    /// The token that verified the message.
    pub slot: TokenSlot,
    /// The message that brought it.
    pub message: MessageSid,
    /// The file.
    pub media: MediaSid,
}

/// What there is behind a link.
///
/// Found again: see [`MediaLinks`].
#[derive(Clone, PartialEq, Eq)]
pub struct Linked {
    /// The file.
    pub file: LinkedFile,
    /// What it is, as far as is said.
    pub content_type: Option<String>,
}

/// Links and what they lead to.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::Timestamp;
/// use replyhook::store::{Access, LinkKey, LinkedFile, MediaLinks, NewFile, NewLink, Store, sqlite::SqliteStore};
///
/// let (store, now) = (SqliteStore::memory(), Timestamp::UNIX_EPOCH);
/// store.open(Access::Owner).await?;
/// let link = NewLink {
///     key: LinkKey([7; 32]),
///     file: NewFile::Ours((*b"BEGIN:VCARD").into()),
///     content_type: Some("text/vcard".to_owned()),
///     message: None,
///     expires_at: Timestamp::MAX,
/// };
/// store.offer(link).await?;
/// let linked = store.linked(LinkKey([7; 32]), now).await?.expect("it was offered");
/// let LinkedFile::Ours { hash, length } = linked.file else { panic!("it is ours") };
/// assert_eq!((length, store.piece(hash, 0).await?), (11, Some(b"BEGIN:VCARD".to_vec())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError).
pub trait MediaLinks: Send + Sync {
    /// Returns the key of this store's links: the same one on every machine and after every restart.
    ///
    /// It is read when the store is opened and kept in memory, so that a token can be checked without the store.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotOpen`](super::StoreErrorKind::NotOpen) before the store is open.
    fn link_signing_key(&self) -> Result<&LinkSigningKey, StoreError>;

    /// Keeps a link until its time is up.
    fn offer(&self, link: NewLink) -> Outcome<'_, ()>;

    /// What a link leads to, if there is such a link and its time is not up.
    fn linked(&self, key: LinkKey, now: Timestamp) -> Outcome<'_, Option<Linked>>;

    /// A piece of a file of ours, by its number from 0; nothing behind its end, or where the file is gone.
    fn piece(&self, file: FileHash, number: u32) -> Outcome<'_, Option<Vec<u8>>>;

    /// Forgets some links whose time is up, and files that nothing leads to any more. Returns whether there were any.
    fn expire_links(&self, now: Timestamp) -> Outcome<'_, bool>;
}

/// Even the hash is told to nobody: it tells two links apart.
impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
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

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(bytes) => write!(f, "Ours({} bytes)", bytes.len()),
            Self::AtTwilio(file) => file.fmt(f),
        }
    }
}

impl fmt::Debug for FileAtTwilio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtTwilio({}, {})", self.message, self.media)
    }
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linked")
            .field("file", &self.file)
            .field("content_type", &self.content_type)
            .finish()
    }
}
