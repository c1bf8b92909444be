//! The token of a link: 256 random bits, of which the store keeps only a hash, and a tag over them by the store's key.
//!
//! The tag is checked before the store is asked, so that a forged token costs a hash and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::store::{LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkKey, LinkSigningKey};

const BYTES: usize = LINK_SECRET_BYTES + LINK_TAG_BYTES;
/// A multiple of four for a multiple of three bytes: no padding and no unused bits, so each token has one spelling.
const CHARACTERS: usize = BYTES / 3 * 4;

/// Makes a token, and the key by which the store finds its link.
///
/// # Errors
/// When the operating system has no random numbers.
pub(super) fn new(key: &LinkSigningKey) -> Result<(String, LinkKey), getrandom::Error> {
    let mut secret = [0; LINK_SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    let mut bytes = [0; BYTES];
    let (left, right) = bytes.split_at_mut(LINK_SECRET_BYTES);
    left.copy_from_slice(&secret);
    right.copy_from_slice(&key.tag(&secret));
    Ok((URL_SAFE_NO_PAD.encode(bytes), link_key(&secret)))
}

/// The key by which the store finds the link of a token, if the store's key has tagged it.
pub(super) fn verified(token: &str, key: &LinkSigningKey) -> Option<LinkKey> {
    if token.len() != CHARACTERS {
        return None;
    }
    let mut bytes = [0; BYTES];
    URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
    let (secret, tag) = bytes.split_first_chunk()?;
    let tag = tag.try_into().ok()?;
    key.verifies(secret, tag).then(|| link_key(secret))
}

/// A hash without salt is enough: 256 random bits cannot be guessed.
fn link_key(secret: &[u8; LINK_SECRET_BYTES]) -> LinkKey {
    LinkKey(Sha256::digest(secret).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> LinkSigningKey {
        LinkSigningKey::new(&[7; 32])
    }

    #[test]
    fn token_of_another_key_is_refused() {
        let (token, known) = new(&key()).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(verified(&token, &key()), Some(known));
        assert_eq!(verified(&token, &LinkSigningKey::new(&[8; 32])), None);
        assert_ne!(new(&key()).unwrap().1, known);
    }

    proptest! {
        #[test]
        fn token_with_one_character_changed_is_refused(at in 0..CHARACTERS, to in any::<char>()) {
            let (token, known) = new(&key()).unwrap();
            let mut characters: Vec<char> = token.chars().collect();
            characters[at] = to;
            let changed: String = characters.into_iter().collect();
            let expected = (changed == token).then_some(known);
            prop_assert_eq!(verified(&changed, &key()), expected);
        }

        #[test]
        fn token_of_another_length_is_refused(cut in 0..CHARACTERS, more in "[A-Za-z0-9_=-]{1,70}") {
            let (token, _) = new(&key()).unwrap();
            prop_assert_eq!(verified(&token[..cut], &key()), None);
            prop_assert_eq!(verified(&format!("{token}{more}"), &key()), None);
            prop_assert_eq!(verified(&format!("{more}{token}"), &key()), None);
        }

        #[test]
        fn random_text_is_refused(text in "([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{64}|\\PC{0,100})") {
            prop_assert_eq!(verified(&text, &key()), None);
        }
    }
}
