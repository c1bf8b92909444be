//! Rows of links to media: their columns, and the key that signs their tokens.

use sha2::{Digest, Sha256};

use super::error::{StoreError, StoreErrorKind};
use super::media::{
    FileHash, LinkSigningKey, LinkSource, LinkTarget, NewLink, ResolvedLink, TwilioMedia,
};
use super::packing::{
    account_sid, auth_token, auth_token_number, message_sid, sid_bytes, unreadable,
};

/// Columns of `media_link` that identify the file behind a link.
#[derive(Default)]
pub(super) struct LinkColumns {
    pub(super) message: Option<Vec<u8>>,
    pub(super) file: Option<Vec<u8>>,
    pub(super) account: Option<Vec<u8>>,
    pub(super) auth_token: Option<i64>,
    pub(super) media_message: Option<Vec<u8>>,
    pub(super) media: Option<String>,
}

impl LinkColumns {
    pub(super) fn of(link: &NewLink) -> Self {
        let message = link.message.map(|sid| sid_bytes(sid.as_str()));
        match &link.file {
            LinkSource::Stored(bytes) => Self {
                message,
                file: Some(Sha256::digest(bytes).to_vec()),
                ..Self::default()
            },
            LinkSource::Twilio(TwilioMedia {
                account,
                auth_token,
                message: media_message,
                media,
            }) => Self {
                message,
                file: None,
                account: Some(sid_bytes(account.as_str())),
                auth_token: Some(auth_token_number(*auth_token)),
                media_message: Some(sid_bytes(media_message.as_str())),
                media: Some(media.to_string()),
            },
        }
    }
}

/// Builds a resolved link from its columns and from the length of its stored file, if it has one.
pub(super) fn resolved_link(
    content_type: Option<String>,
    columns: &LinkColumns,
    length: Option<i64>,
) -> Result<ResolvedLink, StoreError> {
    let file = if let (Some(hash), Some(length)) = (&columns.file, length) {
        LinkTarget::Stored {
            hash: FileHash(hash.as_slice().try_into().map_err(|_| unreadable())?),
            length: length.try_into().map_err(|_| unreadable())?,
        }
    } else {
        let media = columns.media.as_deref().ok_or_else(unreadable)?;
        LinkTarget::Twilio(TwilioMedia {
            account: account_sid(columns.account.as_deref().ok_or_else(unreadable)?)?,
            auth_token: auth_token(columns.auth_token.ok_or_else(unreadable)?),
            message: message_sid(columns.media_message.as_deref().ok_or_else(unreadable)?)?,
            media: media.parse().map_err(|_| unreadable())?,
        })
    };
    Ok(ResolvedLink { file, content_type })
}

/// Returns a new link signing key from the operating system's random numbers.
pub(super) fn new_link_signing_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error.to_string()))?;
    Ok(key)
}

/// Builds the link signing key from its stored bytes.
pub(super) fn link_signing_key(stored: &[u8]) -> Result<LinkSigningKey, StoreError> {
    let key = stored.try_into().map_err(|_| {
        StoreError::with_source(
            StoreErrorKind::Corrupt,
            "the key in the table media_link_key is not 32 bytes long; delete its row, and a new one is made",
        )
    })?;
    Ok(LinkSigningKey::new(key))
}
