//! [`SigningKey`]: an auth token or a shared key, as the signer of a request has it.

use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use super::token::{TokenError, sign_with};
use crate::form::FormParams;
use crate::secret::Secret;

/// The key that signs a request: an auth token, or a shared key.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::signature::{SharedKeyId, SignatureAlgorithm, SigningKey};
///
/// let key = SigningKey::SharedKey {
///     id: SharedKeyId::parse("webhooks_sharedkey_01h455vb4pex5vsknk084sn02q")?,
///     secret: Secret::new("the secret that Twilio showed once"),
///     algorithm: SignatureAlgorithm::HmacSha256,
/// };
/// assert_eq!(key.sign("https://bot.example.com/sms?Body=hi", None)?.len(), 44);
/// assert_eq!(
///     key.settings_header().as_deref(),
///     Some("key=webhooks_sharedkey_01h455vb4pex5vsknk084sn02q,algorithm=HMAC_SHA256")
/// );
/// let token = SigningKey::from(&Secret::new("0123456789abcdef0123456789abcdef"));
/// assert_eq!(token.settings_header(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub enum SigningKey {
    /// An auth token, which signs with HMAC-SHA1.
    AuthToken(Secret),
    /// A shared key.
    SharedKey {
        /// ID that the request names.
        id: SharedKeyId,
        /// Its secret.
        secret: Secret,
        /// Algorithm of the signature.
        algorithm: SignatureAlgorithm,
    },
}

impl SigningKey {
    /// Signs a request like [`sign`](super::sign).
    ///
    /// # Errors
    /// [`TokenError::Blank`] if the token or secret is empty or blank.
    pub fn sign(&self, url: &str, form: Option<&FormParams>) -> Result<String, TokenError> {
        let (algorithm, secret) = match self {
            Self::AuthToken(token) => (SignatureAlgorithm::HmacSha1, token),
            Self::SharedKey {
                secret, algorithm, ..
            } => (*algorithm, secret),
        };
        sign_with(algorithm, secret, url, form)
    }

    /// Returns the value of the `X-Twilio-Webhooks-Signature-Settings` header; `None` for an auth token, which needs none.
    pub fn settings_header(&self) -> Option<String> {
        match self {
            Self::AuthToken(_) => None,
            Self::SharedKey { id, algorithm, .. } => Some(id.settings_header(*algorithm)),
        }
    }
}

impl From<&Secret> for SigningKey {
    fn from(token: &Secret) -> Self {
        Self::AuthToken(token.clone())
    }
}

impl From<&Self> for SigningKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}
