//! Errors of requests that are not verified.

use crate::form::FormError;

/// Error of a request that is not verified. It contains nothing of the request.
///
/// ```
/// use http::{HeaderMap, Method};
/// use replyhook::Secret;
/// use replyhook::signature::{PublicUrl, SignatureErrorKind, SignatureVerifier, UnverifiedRequest};
///
/// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
/// let verifier = SignatureVerifier::new(url, [Secret::new("0123456789abcdef0123456789abcdef")])?;
/// let headers = HeaderMap::new();
/// let forged = UnverifiedRequest { method: &Method::POST, target: "/webhook", headers: &headers, body: b"Body=hi" };
/// assert_eq!(verifier.verify(&forged).unwrap_err().kind(), SignatureErrorKind::MissingHeader);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct SignatureError {
    kind: SignatureErrorKind,
}

/// Kind of a [`SignatureError`].
///
/// See [`SignatureError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureErrorKind {
    /// The signature header is missing or empty.
    #[error("the X-Twilio-Signature header is missing")]
    MissingHeader,
    /// There is more than one signature header. A proxy or another reader might use a different one.
    #[error("there is more than one X-Twilio-Signature header")]
    RepeatedHeader,
    /// The header is not 28 characters of base64, or 44 with HMAC-SHA256.
    #[error("the X-Twilio-Signature header is not 28 characters of base64, or 44 with HMAC_SHA256")]
    MalformedHeader,
    /// The header that names the shared key is malformed.
    #[error(transparent)]
    SettingsHeader(SettingsHeaderError),
    /// The request names a shared key that is not configured.
    #[error("the SharedKey is not configured")]
    UnknownSharedKey,
    /// The signature matches no accepted URL and token.
    #[error("the signature does not fit the request")]
    Mismatch,
    /// The `bodySHA256` of the URL is not the hash of the body.
    #[error("bodySHA256 does not fit the body")]
    BodyHash,
    /// The `AccountSid` is not configured, or is not that of the shared key.
    #[error("the AccountSid is not configured, or is not that of the SharedKey")]
    UnknownAccount,
    /// The body is not a form, and without exactly one `bodySHA256` it is not signed.
    #[error("the body is not a form")]
    NotAForm,
    /// The form cannot be decoded.
    #[error(transparent)]
    Form(FormError),
    /// The signature matches, but the signed bytes name another message than the parameters. A captured request may
    /// have been split into other names and values.
    #[error("the signature fits, but the signed bytes name another message than the parameters do")]
    Reshaped,
}

impl SignatureError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> SignatureErrorKind {
        self.kind
    }
}

impl From<SignatureErrorKind> for SignatureError {
    fn from(kind: SignatureErrorKind) -> Self {
        Self { kind }
    }
}

/// Error of an `X-Twilio-Webhooks-Signature-Settings` header.
///
/// ```
/// use replyhook::signature::SettingsHeaderError;
///
/// let error = SettingsHeaderError::NoKey;
/// assert_eq!(error.to_string(), "the X-Twilio-Webhooks-Signature-Settings header names no key");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsHeaderError {
    /// There are several headers, or the header names a key or an algorithm twice.
    #[error("there is more than one X-Twilio-Webhooks-Signature-Settings header, key or algorithm")]
    Repeated,
    /// The header has no key, or one that is not a [`SharedKeyId`](super::SharedKeyId).
    #[error("the X-Twilio-Webhooks-Signature-Settings header names no key")]
    NoKey,
    /// The algorithm is not a [`SignatureAlgorithm`](super::SignatureAlgorithm).
    #[error(
        "the X-Twilio-Webhooks-Signature-Settings header names an algorithm other than HMAC_SHA1 and HMAC_SHA256"
    )]
    Algorithm,
}
