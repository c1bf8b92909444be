//! IDs and algorithms of shared keys: keys of the customer that sign webhooks in place of the auth token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum length of an ID. Twilio's have 45 characters.
const MAX_ID_LEN: usize = 64;

/// ID of a shared key, such as `webhooks_sharedkey_01h455vb4pex5vsknk084sn02q`. It is not secret.
///
/// ```
/// use replyhook::signature::{SharedKeyId, SignatureAlgorithm};
///
/// let id = SharedKeyId::parse("webhooks_sharedkey_01h455vb4pex5vsknk084sn02q")?;
/// assert_eq!(
///     id.settings_header(SignatureAlgorithm::HmacSha256),
///     "key=webhooks_sharedkey_01h455vb4pex5vsknk084sn02q,algorithm=HMAC_SHA256"
/// );
/// assert!(SharedKeyId::parse("key 1").is_err());
/// # Ok::<(), replyhook::signature::SharedKeyIdError>(())
/// ```
// An array instead of a `String`, like the SIDs: an ID is parsed with each request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SharedKeyId {
    bytes: [u8; MAX_ID_LEN],
    len: usize,
}

/// Error of a text that is not the ID of a shared key. It does not contain the text, which is untrusted.
///
/// See [`SharedKeyId`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the ID of a SharedKey: expected 1 to 64 letters, digits, _ or -")]
pub struct SharedKeyIdError;

impl SharedKeyId {
    /// Parses an ID.
    ///
    /// # Errors
    /// [`SharedKeyIdError`] if the length or a character is wrong.
    pub fn parse(text: &str) -> Result<Self, SharedKeyIdError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Parses an ID from bytes of a header.
    pub(super) fn from_bytes(text: &[u8]) -> Result<Self, SharedKeyIdError> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() | matches!(byte, b'_' | b'-');
        let mut bytes = [0; MAX_ID_LEN];
        let Some(start) = bytes.get_mut(..text.len()) else {
            return Err(SharedKeyIdError);
        };
        start.copy_from_slice(text);
        // Over the whole array and without an early return, so that the compiler vectorizes it.
        let plain = bytes.iter().map(|byte| u8::from(is_plain(byte)));
        if text.is_empty() || usize::from(plain.sum::<u8>()) != text.len() {
            return Err(SharedKeyIdError);
        }
        Ok(Self {
            bytes,
            len: text.len(),
        })
    }

    /// Returns the characters as received.
    pub fn as_str(&self) -> &str {
        // Cannot fail: `parse` accepts ASCII only.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Returns the value of the `X-Twilio-Webhooks-Signature-Settings` header of a request that this key signs.
    pub fn settings_header(&self, algorithm: SignatureAlgorithm) -> String {
        format!("key={self},algorithm={algorithm}")
    }

    /// Returns whether both are the same key, without regard to case: IDs that come from environment keys lose theirs.
    pub fn is_same(&self, other: &Self) -> bool {
        // Equal bytes first: they are the usual case.
        self == other || self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

impl fmt::Display for SharedKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SharedKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SharedKeyId {
    type Err = SharedKeyIdError;

    fn from_str(text: &str) -> Result<Self, SharedKeyIdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SharedKeyId {
    type Error = SharedKeyIdError;

    fn try_from(text: String) -> Result<Self, SharedKeyIdError> {
        Self::parse(&text)
    }
}

impl From<SharedKeyId> for String {
    fn from(id: SharedKeyId) -> Self {
        id.as_str().to_owned()
    }
}

/// Algorithm of a signature. Auth tokens sign with HMAC-SHA1, shared keys with either.
///
/// ```
/// use replyhook::signature::SignatureAlgorithm;
///
/// assert_eq!("hmac_sha256".parse::<SignatureAlgorithm>(), Ok(SignatureAlgorithm::HmacSha256));
/// assert!("HMAC_MD5".parse::<SignatureAlgorithm>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SignatureAlgorithm {
    /// HMAC-SHA1: 28 characters of base64.
    #[serde(rename = "HMAC_SHA1")]
    HmacSha1,
    /// HMAC-SHA256: 44 characters of base64.
    #[serde(rename = "HMAC_SHA256")]
    HmacSha256,
}

/// Error of a text that is not the name of a [`SignatureAlgorithm`].
///
/// See [`SignatureAlgorithm`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an algorithm of signatures: expected HMAC_SHA1 or HMAC_SHA256")]
pub struct SignatureAlgorithmError;

impl SignatureAlgorithm {
    /// Returns Twilio's name of the algorithm.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC_SHA1",
            Self::HmacSha256 => "HMAC_SHA256",
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = SignatureAlgorithmError;

    fn from_str(name: &str) -> Result<Self, SignatureAlgorithmError> {
        [Self::HmacSha1, Self::HmacSha256]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
            .ok_or(SignatureAlgorithmError)
    }
}
