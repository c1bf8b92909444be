//! Auth tokens and secrets of shared keys as HMAC keys, and the signing of requests.

use std::slice;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::headers::ReceivedSignature;
use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use crate::form::{FormParams, SortOrder};
use crate::secret::Secret;
use crate::sid::AccountSid;

/// Error of auth tokens that cannot verify a signature.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::signature::{TokenError, sign};
///
/// assert_eq!(sign(&Secret::new(" "), "https://bot.example.com/webhook", None), Err(TokenError::Blank));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No token, so nothing could be verified.
    #[error("at least one auth token is needed")]
    None,
    /// An empty or blank token or secret, with which anyone could sign.
    #[error(
        "an auth token or the secret of a SharedKey is empty: with an empty key anyone could sign"
    )]
    Blank,
}

/// Kind of the configured token or key that verified a request.
///
/// See `SignedForm` for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthTokenKind {
    /// The first default token.
    Primary,
    /// A later default token, for rotation.
    Secondary,
    /// A token that belongs to the message's own account, or to a verifier added with [`SignatureVerifier::or`](super::SignatureVerifier::or).
    Subaccount,
    /// A shared key, added with [`SignatureVerifier::with_shared_key`](super::SignatureVerifier::with_shared_key).
    SharedKey,
}

/// An auth token or the secret of a shared key, with its HMAC key schedule, which is computed once.
#[derive(Clone)]
pub(super) enum HmacKey {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl HmacKey {
    pub(super) fn new(algorithm: SignatureAlgorithm, secret: &Secret) -> Result<Self, TokenError> {
        // A setting that is present but empty must not become a key that everyone knows.
        if secret.expose().trim().is_empty() {
            return Err(TokenError::Blank);
        }
        let key = secret.expose().as_bytes();
        Ok(match algorithm {
            SignatureAlgorithm::HmacSha1 => Self::Sha1(key_schedule(key)),
            SignatureAlgorithm::HmacSha256 => Self::Sha256(key_schedule(key)),
        })
    }

    /// Returns whether the signature is that of the concatenated parts.
    pub(super) fn verifies(&self, parts: &[&[u8]], signature: &ReceivedSignature) -> bool {
        // A signature of the other algorithm has another length, and does not match.
        match self {
            Self::Sha1(key) => is_mac_of(key, parts, signature.as_bytes()),
            Self::Sha256(key) => is_mac_of(key, parts, signature.as_bytes()),
        }
    }

    /// Returns the signature of the concatenated parts, in base64.
    fn sign(&self, parts: &[&[u8]]) -> String {
        match self {
            Self::Sha1(key) => STANDARD.encode(compute_mac(key, parts).finalize().into_bytes()),
            Self::Sha256(key) => STANDARD.encode(compute_mac(key, parts).finalize().into_bytes()),
        }
    }
}

/// A configured shared key with its key schedules.
#[derive(Clone)]
pub(super) struct SharedKey {
    pub(super) id: SharedKeyId,
    /// The only account whose requests the key signs, in lower case.
    pub(super) account: AccountSid,
    sha1: HmacKey,
    sha256: HmacKey,
}

impl SharedKey {
    pub(super) fn new(
        id: SharedKeyId,
        account: AccountSid,
        secret: &Secret,
    ) -> Result<Self, TokenError> {
        Ok(Self {
            id,
            account: account.to_lowercase(),
            sha1: HmacKey::new(SignatureAlgorithm::HmacSha1, secret)?,
            sha256: HmacKey::new(SignatureAlgorithm::HmacSha256, secret)?,
        })
    }

    /// Returns the key of an algorithm, as the only one to try.
    pub(super) fn keys(&self, algorithm: SignatureAlgorithm) -> &[HmacKey] {
        slice::from_ref(match algorithm {
            SignatureAlgorithm::HmacSha1 => &self.sha1,
            SignatureAlgorithm::HmacSha256 => &self.sha256,
        })
    }

    /// Returns whether a form belongs to the account of the key, or names no account.
    pub(super) fn is_for(&self, form: &FormParams) -> bool {
        // Without an `AccountSid`, as with an auth token: `InboundMessage::parse` rejects such a form later.
        form.get("AccountSid").is_none_or(|account| {
            AccountSid::parse(account).map(AccountSid::to_lowercase) == Ok(self.account)
        })
    }
}

fn key_schedule<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn is_mac_of<M: Mac + Clone>(key: &M, parts: &[&[u8]], signature: &[u8]) -> bool {
    // `verify_slice` compares in constant time. An early exit at the first different byte would let a client find a
    // valid signature byte by byte.
    compute_mac(key, parts).verify_slice(signature).is_ok()
}

// Parts instead of one buffer: the URL candidates share the parameters, which are then not copied for each.
fn compute_mac<M: Mac + Clone>(key: &M, parts: &[&[u8]]) -> M {
    let mut mac = key.clone();
    for part in parts {
        mac.update(part);
    }
    mac
}

/// Signs a request like Twilio, with an auth token. Pass the form of a POST or PUT; pass `None` for a GET or a body of another type.
///
/// The URL is signed unchanged, except that user, password and fragment are left out, as Twilio does.
///
/// ```
/// use replyhook::{FormParams, Secret, signature::sign};
///
/// let form = FormParams::from_iter([("CallSid", "CA1234567890ABCDE"), ("Caller", "+14158675309"),
///     ("Digits", "1234"), ("From", "+14158675309"), ("To", "+18005551212")]);
/// let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
/// assert_eq!(sign(&Secret::new("12345"), url, Some(&form))?, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
/// # Ok::<(), replyhook::signature::TokenError>(())
/// ```
///
/// # Errors
/// [`TokenError::Blank`] if the token is empty or blank.
pub fn sign(token: &Secret, url: &str, form: Option<&FormParams>) -> Result<String, TokenError> {
    sign_with(SignatureAlgorithm::HmacSha1, token, url, form)
}

/// Signs a request like [`sign`], with the secret of a shared key and an algorithm.
///
/// See [`SignatureVerifier::with_shared_key`](super::SignatureVerifier::with_shared_key) for an example.
///
/// # Errors
/// [`TokenError::Blank`] if the secret is empty or blank.
pub fn sign_with(
    algorithm: SignatureAlgorithm,
    secret: &Secret,
    url: &str,
    form: Option<&FormParams>,
) -> Result<String, TokenError> {
    // Cut by hand: a URL parser would normalize the URL, and Twilio signs it as configured.
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest
        .find(['/', '?'])
        .map_or((rest, ""), |at| rest.split_at(at));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    let mut params = Vec::new();
    if let Some(form) = form {
        form.append_signed(SortOrder::Bytes, &mut params);
    }
    let parts = [
        scheme.as_bytes(),
        separator.as_bytes(),
        host.as_bytes(),
        path.as_bytes(),
        &params,
    ];
    Ok(HmacKey::new(algorithm, secret)?.sign(&parts))
}
