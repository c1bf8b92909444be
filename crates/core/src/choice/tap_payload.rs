//! The payload of a button, item or chip: it names the question and the choice.

use std::fmt;

use super::chosen::ChoiceVia;
use super::question_id::QuestionId;

/// Beginning of every payload, with the version of its format.
const PREFIX: &str = "rh1";

/// Payload of a tap on one of our questions.
///
/// Contains the choice's ID and the key, so that a bot gets both even if the question is not stored any more.
#[derive(Clone, PartialEq, Eq)]
pub struct TapPayload {
    /// Form of the question: button, list or chip.
    pub via: ChoiceVia,
    /// The question.
    pub question: QuestionId,
    /// The bot's key for the question.
    pub key: Option<String>,
    /// ID of the choice.
    pub id: String,
}

impl TapPayload {
    /// Maximum length of a payload in UTF-16 units: the strictest of several that Twilio documents.
    pub const MAX_UNITS: usize = 128;

    /// Returns the text of the payload, or `None` if it is too long for a button.
    pub fn encode(&self) -> Option<String> {
        let via = match self.via {
            ChoiceVia::Button => 'b',
            ChoiceVia::List => 'l',
            ChoiceVia::Chip => 'c',
            ChoiceVia::Number | ChoiceVia::Text => return None,
        };
        let question = self.question.as_str();
        // The length precedes the key, so that key and ID may contain any character. Without a key, both are empty.
        let key = self.key.as_deref();
        let length = key.map_or(String::new(), |key| key.len().to_string());
        let key = key.unwrap_or_default();
        let payload = format!("{PREFIX}{via}{question}{length}:{key}{}", self.id);
        (payload.encode_utf16().count() <= Self::MAX_UNITS).then_some(payload)
    }

    /// Parses a payload; `None` for one of another program or version.
    pub fn parse(payload: &str) -> Option<Self> {
        let rest = payload.strip_prefix(PREFIX)?;
        let via = match rest.chars().next()? {
            'b' => ChoiceVia::Button,
            'l' => ChoiceVia::List,
            'c' => ChoiceVia::Chip,
            _ => return None,
        };
        let question = QuestionId::parse(rest.get(1..21)?)?;
        let (length, rest) = rest.get(21..)?.split_once(':')?;
        let key = match length {
            "" => None,
            length if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(rest.get(..length.parse().ok()?)?)
            }
            _ => return None,
        };
        let id = rest.get(key.map_or(0, str::len)..)?;
        (!id.is_empty()).then(|| Self {
            via,
            question,
            key: key.map(str::to_owned),
            id: id.to_owned(),
        })
    }
}

/// Shows the question and hides key and ID.
impl fmt::Debug for TapPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapPayload")
            .field("via", &self.via)
            .field("question", &self.question)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sid::{AccountSid, MessageSid};

    fn question() -> QuestionId {
        let account = AccountSid::parse("AC00000000000000000000000000000001").unwrap();
        let message = MessageSid::parse("SM00000000000000000000000000000001").unwrap();
        QuestionId::of_reply(account, message, 0)
    }

    proptest! {
        #[test]
        fn payload_survives_the_way_to_the_phone(
            key in prop::option::of("\\PC{0,30}"),
            id in "\\PC{1,40}",
        ) {
            let payload = TapPayload { via: ChoiceVia::List, question: question(), key, id };
            match payload.encode() {
                Some(text) => prop_assert_eq!(TapPayload::parse(&text), Some(payload)),
                None => prop_assert!(payload.id.len() + payload.key.map_or(0, |key| key.len()) > 90),
            }
        }

        #[test]
        fn foreign_payload_is_not_ours(text in "(rh1[a-z]?[-_0-9a-zA-Z]{0,22}[0-9]{0,3}:?)?\\PC{0,40}") {
            if let Some(parsed) = TapPayload::parse(&text) {
                // A text that looks like ours is read as it would be written.
                let again = parsed.encode().and_then(|text| TapPayload::parse(&text));
                prop_assert_eq!(again, Some(parsed));
            }
        }
    }

    #[test]
    fn payload_of_other_programs_is_not_ours() {
        for text in [
            "",
            "today",
            "confirm:42",
            "rh1",
            "rh1b",
            "rh2bAAAAAAAAAAAAAAAAAAAA:x",
            "rh1bAAAAAAAAAAAAAAAAAAAA9:x",
        ] {
            assert_eq!(TapPayload::parse(text), None, "{text}");
        }
    }
}
