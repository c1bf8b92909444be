//! The token of a link: a 256-bit random secret, and a tag over it by the store's key.
//!
//! The store has only a hash of the secret. The tag is checked before the store is queried, so that a forged token
//! costs one HMAC and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::store::{LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkSigningKey, LinkTokenHash};

const TOKEN_BYTES: usize = LINK_SECRET_BYTES + LINK_TAG_BYTES;
/// Length of a token in base64.
// The 48 bytes are a multiple of three: no padding and no unused bits, so that each token has exactly one spelling.
const TOKEN_CHARACTERS: usize = TOKEN_BYTES / 3 * 4;

/// Creates a token, and the hash under which the store finds its link.
///
/// # Errors
/// [`getrandom::Error`] if the operating system cannot provide random bytes.
pub(super) fn create(key: &LinkSigningKey) -> Result<(String, LinkTokenHash), getrandom::Error> {
    let mut secret = [0; LINK_SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    let mut bytes = [0; TOKEN_BYTES];
    let (secret_part, tag_part) = bytes.split_at_mut(LINK_SECRET_BYTES);
    secret_part.copy_from_slice(&secret);
    tag_part.copy_from_slice(&key.tag(&secret));
    Ok((URL_SAFE_NO_PAD.encode(bytes), hash_secret(&secret)))
}

/// Returns the hash under which the store finds the link of a token, if the store's key has tagged the token.
pub(super) fn verify(token: &str, key: &LinkSigningKey) -> Option<LinkTokenHash> {
    // `decode_slice` would accept a shorter token, and leave zeros at the end of `bytes`.
    if token.len() != TOKEN_CHARACTERS {
        return None;
    }
    let mut bytes = [0; TOKEN_BYTES];
    URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
    let (secret, tag) = bytes.split_first_chunk()?;
    let tag = tag.try_into().ok()?;
    key.verifies(secret, tag).then(|| hash_secret(secret))
}

/// Returns the hash of a secret, which is all that the store has of it.
// No salt is needed: 256 random bits cannot be guessed, so no table of their hashes can exist.
fn hash_secret(secret: &[u8; LINK_SECRET_BYTES]) -> LinkTokenHash {
    LinkTokenHash(Sha256::digest(secret).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> LinkSigningKey {
        LinkSigningKey::new(&[7; 32])
    }

    #[test]
    fn token_of_another_key_is_rejected() {
        let (token, hash) = create(&key()).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(verify(&token, &key()), Some(hash));
        assert_eq!(verify(&token, &LinkSigningKey::new(&[8; 32])), None);
        assert_ne!(create(&key()).unwrap().1, hash);
    }

    proptest! {
        #[test]
        fn token_with_one_character_changed_is_rejected(at in 0..TOKEN_CHARACTERS, to in any::<char>()) {
            let (token, hash) = create(&key()).unwrap();
            let mut characters: Vec<char> = token.chars().collect();
            characters[at] = to;
            let changed: String = characters.into_iter().collect();
            let expected = (changed == token).then_some(hash);
            prop_assert_eq!(verify(&changed, &key()), expected);
        }

        #[test]
        fn token_of_another_length_is_rejected(cut in 0..TOKEN_CHARACTERS, more in "[A-Za-z0-9_=-]{1,70}") {
            let (token, _) = create(&key()).unwrap();
            prop_assert_eq!(verify(&token[..cut], &key()), None);
            prop_assert_eq!(verify(&format!("{token}{more}"), &key()), None);
            prop_assert_eq!(verify(&format!("{more}{token}"), &key()), None);
        }

        #[test]
        fn random_text_is_rejected(text in "([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{64}|\\PC{0,100})") {
            prop_assert_eq!(verify(&text, &key()), None);
        }
    }
}
