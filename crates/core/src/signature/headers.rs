//! The two headers of a signed request: the signature, and the settings that name the key which made it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use super::signature_error::{SettingsHeaderError, SignatureErrorKind};

/// Name of the signature header.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// Name of the header that names the shared key and the algorithm of a signature.
pub const SIGNATURE_SETTINGS_HEADER: &str = "x-twilio-webhooks-signature-settings";

// Parsed once, and not for each request.
static SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);
static SIGNATURE_SETTINGS: HeaderName = HeaderName::from_static(SIGNATURE_SETTINGS_HEADER);

/// Length of an HMAC-SHA1 in base64.
const SHA1_TEXT_LEN: usize = 28;
/// Length of an HMAC-SHA256 in base64.
pub(super) const SHA256_TEXT_LEN: usize = 44;

/// Key and algorithm that a request names.
#[derive(Clone, Copy)]
pub(super) struct NamedKey {
    pub(super) id: SharedKeyId,
    pub(super) algorithm: SignatureAlgorithm,
}

impl NamedKey {
    /// Returns the key that a request names; `None` if an auth token signed it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, SettingsHeaderError> {
        let mut values = headers.get_all(&SIGNATURE_SETTINGS).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        // With two headers, another reader could use the other one.
        if values.next().is_some() {
            return Err(SettingsHeaderError::Repeated);
        }
        if let Some(named) = Self::of_usual(value.as_bytes()) {
            return Ok(Some(named));
        }
        let text = value.to_str().map_err(|_| SettingsHeaderError::NoKey)?;
        // As in Twilio's libraries, an empty header is a missing one.
        if text.trim().is_empty() {
            return Ok(None);
        }
        let (mut id, mut algorithm) = (None, None);
        for part in text.split(',') {
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let slot = match name.trim() {
                "key" => &mut id,
                "algorithm" => &mut algorithm,
                // Twilio may add parts.
                _ => continue,
            };
            if slot.replace(value.trim()).is_some() {
                return Err(SettingsHeaderError::Repeated);
            }
        }
        let id = id
            .and_then(|id| SharedKeyId::parse(id).ok())
            .ok_or(SettingsHeaderError::NoKey)?;
        let algorithm = match algorithm {
            None | Some("") => SignatureAlgorithm::HmacSha1,
            Some(name) => name.parse().map_err(|_| SettingsHeaderError::Algorithm)?,
        };
        Ok(Some(Self { id, algorithm }))
    }

    /// Reads the header as Twilio writes it, without the general parser.
    fn of_usual(header: &[u8]) -> Option<Self> {
        let header = header.strip_prefix(b"key=")?;
        let (id, algorithm) = header.split_at(memchr::memchr(b',', header)?);
        let algorithm = match algorithm {
            b",algorithm=HMAC_SHA256" => SignatureAlgorithm::HmacSha256,
            b",algorithm=HMAC_SHA1" => SignatureAlgorithm::HmacSha1,
            _ => return None,
        };
        let id = SharedKeyId::from_bytes(id).ok()?;
        Some(Self { id, algorithm })
    }
}

/// A decoded signature, of the length that its algorithm has.
#[derive(Clone, Copy)]
pub(super) enum ReceivedSignature {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl ReceivedSignature {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Sha1(_) => SignatureAlgorithm::HmacSha1,
            Self::Sha256(_) => SignatureAlgorithm::HmacSha256,
        }
    }

    /// Decodes the header of a signature. `None` unless it is canonical base64 of the right length.
    pub(super) fn decode(value: &HeaderValue, algorithm: SignatureAlgorithm) -> Option<Self> {
        // One byte more than a signature has: without its padding, the text would be that long.
        let mut decoded = [0; 33];
        let (text_len, byte_len) = match algorithm {
            SignatureAlgorithm::HmacSha1 => (SHA1_TEXT_LEN, 20),
            SignatureAlgorithm::HmacSha256 => (SHA256_TEXT_LEN, 32),
        };
        // Check the length first, so that a huge header is not decoded.
        if value.len() != text_len {
            return None;
        }
        let length = STANDARD.decode_slice(value.as_bytes(), &mut decoded[..=byte_len]);
        let bytes = decoded
            .get(..length.ok()?)
            .filter(|bytes| bytes.len() == byte_len)?;
        Some(match algorithm {
            SignatureAlgorithm::HmacSha1 => Self::Sha1(bytes.try_into().ok()?),
            SignatureAlgorithm::HmacSha256 => Self::Sha256(bytes.try_into().ok()?),
        })
    }
}

/// Signature of a request, and the shared key that the request names.
#[derive(Clone, Copy)]
pub(super) struct SignatureHeaders {
    pub(super) signature: ReceivedSignature,
    /// `None` if an auth token signed the request.
    pub(super) key: Option<NamedKey>,
}

impl SignatureHeaders {
    /// Decodes the headers of a request. There must be exactly one signature.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, SignatureErrorKind> {
        let mut values = headers.get_all(&SIGNATURE).iter();
        let value = values.next().ok_or(SignatureErrorKind::MissingHeader)?;
        if values.next().is_some() {
            return Err(SignatureErrorKind::RepeatedHeader);
        }
        if value.is_empty() {
            return Err(SignatureErrorKind::MissingHeader);
        }
        let key = NamedKey::of(headers).map_err(SignatureErrorKind::SettingsHeader)?;
        // The algorithm comes from the settings alone, never from the length of the signature.
        let algorithm = key.map_or(SignatureAlgorithm::HmacSha1, |key| key.algorithm);
        let signature = ReceivedSignature::decode(value, algorithm)
            .ok_or(SignatureErrorKind::MalformedHeader)?;
        Ok(Self { signature, key })
    }
}
