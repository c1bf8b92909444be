//! The identity of a question.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sid::{AccountSid, MessageSid};

/// Identity of a question, which its buttons carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuestionId(String);

impl QuestionId {
    /// Returns the identity of a question in the reply to a message: the message numbered `ordinal` of that reply.
    ///
    /// A second attempt to reply to the message creates the same identity.
    // Not the ID in the database, which another database may use again. Fifteen bytes are 20 characters, of the 128 that a
    // payload may have.
    pub fn of_reply(account: AccountSid, message: MessageSid, ordinal: usize) -> Self {
        Self::of_parts(&[&format!("{account}/{message}/{ordinal}")])
    }

    /// Returns the identity of a question in an outbound message, from texts that no other message has.
    pub fn of_outbound(parts: &[&str]) -> Self {
        // A reply has one part, so it never has the identity of an outbound message, which has several.
        Self::of_parts(parts)
    }

    fn of_parts(parts: &[&str]) -> Self {
        let hash = Sha256::digest(parts.join("\0").as_bytes());
        Self(URL_SAFE_NO_PAD.encode(&hash[..15]))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (text.len() == 20 && text.bytes().all(is_valid)).then(|| Self(text.to_owned()))
    }

    /// Returns the text that a payload has.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
