//! [`AccessToken`]: the token of the API.

use hmac::{Hmac, KeyInit, Mac};
use replyhook_core::Secret;
use sha2::{Digest, Sha256};

const TAGGED_TEXT: &[u8] = b"replyhook admin.token";

/// The token of the API. Only a key that is derived from it is stored.
#[derive(Clone)]
pub(crate) struct AccessToken(Hmac<Sha256>);

impl AccessToken {
    pub(crate) fn new(token: &Secret) -> Self {
        Self(derive_key(token.expose().as_bytes()))
    }

    /// Returns whether a text is the token.
    pub(super) fn is(&self, text: &str) -> bool {
        let tag = tag_of(derive_key(text.as_bytes())).finalize().into_bytes();
        // `verify_slice` compares in constant time. An early exit at the first different byte would let a client find the
        // token byte by byte.
        tag_of(self.0.clone()).verify_slice(&tag).is_ok()
    }
}

/// Derives a key of fixed length: HMAC takes a short key and the same one with zeros behind it for equal.
fn derive_key(token: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(&Sha256::digest(token)).expect("HMAC takes a key of any length")
}

fn tag_of(mut mac: Hmac<Sha256>) -> Hmac<Sha256> {
    mac.update(TAGGED_TEXT);
    mac
}
