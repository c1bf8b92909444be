//! The secret in a link: 256 random bits, of which nobody keeps more than a hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::store::LinkKey;

/// A new secret, as it stands in a link, and what it is known by.
///
/// # Errors
/// Where the system has no random numbers.
pub(super) fn new() -> Result<(String, LinkKey), getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok((URL_SAFE_NO_PAD.encode(secret), key_of(&secret)))
}

/// What a secret is known by; `None` for what is none.
pub(super) fn key(text: &str) -> Option<LinkKey> {
    // Neither longer nor shorter: what is decoded is bounded, and there is one way to write each.
    let secret = (text.len() == 43).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    Some(key_of(&secret))
}

/// A hash without salt does: nobody guesses 256 bits.
fn key_of(secret: &[u8]) -> LinkKey {
    LinkKey(Sha256::digest(secret).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_in_one_way_and_no_two_are_alike() {
        let (text, known) = new().unwrap();
        assert_eq!(key(&text), Some(known));
        assert_ne!(new().unwrap().1, known);
        let last = text.as_bytes()[42];
        for wrong in [
            String::new(),
            text[..42].to_owned(),
            format!("{text}="),
            format!("{text}A"),
            format!("{}!", &text[..42]),
            // The last character has two bits that mean nothing, and must be zero.
            format!("{}{}", &text[..42], char::from(last + 1)),
        ] {
            assert_eq!(key(&wrong), None, "{wrong}");
        }
    }
}
