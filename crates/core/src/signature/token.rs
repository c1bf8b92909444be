//! Auth tokens as HMAC keys, and the signing of requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::form::{FormParams, SortOrder};
use crate::secret::Secret;

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
    /// An empty or blank token, with which anyone could sign.
    #[error("an auth token is empty: with an empty key anyone could sign")]
    Blank,
}

/// An auth token with its HMAC key schedule, which is computed once.
#[derive(Clone)]
pub(super) struct HmacKey {
    mac: Hmac<Sha1>,
}

impl HmacKey {
    pub(super) fn new(secret: &Secret) -> Result<Self, TokenError> {
        // A setting that is present but empty must not become a key that everyone knows.
        if secret.expose().trim().is_empty() {
            return Err(TokenError::Blank);
        }
        let mac = Hmac::new_from_slice(secret.expose().as_bytes())
            .expect("HMAC takes a key of any length");
        Ok(Self { mac })
    }

    /// Returns whether the signature is that of the concatenated parts.
    pub(super) fn verifies(&self, parts: &[&[u8]], signature: &[u8; 20]) -> bool {
        // `verify_slice` compares in constant time. An early exit at the first different byte would let a client find a
        // valid signature byte by byte.
        self.compute_mac(parts).verify_slice(signature).is_ok()
    }

    // Parts instead of one buffer: the URL candidates share the parameters, which are then not copied for each.
    fn compute_mac(&self, parts: &[&[u8]]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

/// Signs a request like Twilio. Pass the form of a POST or PUT; pass `None` for a GET or a body of another type.
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
    Ok(STANDARD.encode(
        HmacKey::new(token)?
            .compute_mac(&parts)
            .finalize()
            .into_bytes(),
    ))
}
