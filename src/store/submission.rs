//! Submissions: outbound messages, queued once per idempotency key and only if the user may receive them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::journal::QuestionChange;
use super::outbound_message::NewOutbound;
use crate::form::FormParams;

/// Name that a caller gives to an outbound message, so that the message is sent once however often it is submitted.
///
/// Only the SHA-256 of the name is stored, because the name may contain a phone number or text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    name: [u8; 32],
    /// Not stored, so that a short text cannot be found from the stored fingerprint of its message.
    salt: [u8; 32],
}

impl IdempotencyKey {
    /// Creates a key from a text, which may have any length and any characters.
    pub fn new(text: &str) -> Self {
        let salt = Sha256::new().chain_update(b"message\0").chain_update(text);
        Self {
            name: Sha256::digest(text.as_bytes()).into(),
            salt: salt.finalize().into(),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.name
    }

    /// Returns the fingerprint of a message with this key, given the parameters of all of its parts.
    pub(crate) fn fingerprint<'a>(
        &self,
        parts: impl Iterator<Item = &'a FormParams>,
    ) -> MessageFingerprint {
        let mut hash = Sha256::new().chain_update(self.salt);
        for params in parts {
            let mut pairs: Vec<_> = params.iter().collect();
            // The order of different parameters means nothing, and depends on how the message was made. The sort is
            // stable: repeated parameters, such as files, keep theirs.
            pairs.sort_by_key(|(name, _)| *name);
            let params: FormParams = pairs.into_iter().collect();
            let text = params.encode();
            // The length in front, so that two parts never look like one.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        MessageFingerprint(hash.finalize().to_vec())
    }
}

/// Hash of a message, by which another message with the same idempotency key is told. It outlives the message.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageFingerprint(pub(super) Vec<u8>);

/// Message that was submitted with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedMessage {
    /// ID in the outbox.
    pub id: i64,
    /// Hash of all parts.
    pub fingerprint: MessageFingerprint,
}

/// Outbound message to queue in the outbox, with the conditions under which it may be sent.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Message to send. If a Messaging Service chooses the sender, `sender` is the service's SID.
    pub message: NewOutbound,
    /// Parts of the message that are sent before it, such as the files of a question. They have the same sender and user.
    pub earlier_parts: Vec<NewOutbound>,
    /// Question that the message asks, which becomes the open one of its conversation.
    pub question: Option<QuestionChange>,
    /// Idempotency key. Without one, each submission queues another message.
    pub key: Option<IdempotencyKey>,
    /// Time when the user receives the message. The customer service window must be open then.
    pub due: Timestamp,
    /// Rate limit: interval between the send times of two outbound messages of one sender. Zero means no limit.
    pub min_interval: Duration,
    /// True if a template outside of the window needs a recorded opt-in.
    pub consent_required: bool,
}

/// Outcome of a [`Submission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// The message is in the outbox, with this ID. Its earlier parts have lower ones.
    Queued(i64),
    /// The message with this ID was submitted earlier with the same key. Nothing was added.
    Duplicate(i64),
    /// The message may not be sent. Nothing was added, and the key is still free.
    Ineligible(Ineligible),
}

/// Reason why a message may not be sent to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ineligible {
    /// The user has opted out.
    OptedOut,
    /// The message is not a template, and the customer service window is closed.
    WindowClosed,
    /// The message is a template, the window is closed, and the user has no recorded opt-in.
    NoOptIn,
}

/// Consent and customer service window of a user, which decide the messages that the user may receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendEligibility {
    /// True if the user has opted out, under any of their addresses.
    pub opted_out: bool,
    /// True if an opt-in of the user is recorded.
    pub opted_in: bool,
    /// True if the customer service window is open at the given time.
    pub window_open: bool,
}

impl SendEligibility {
    /// Returns the reason why a message may not be sent, if there is one.
    pub fn ineligible(self, template: bool, consent_required: bool) -> Option<Ineligible> {
        match (self.opted_out, self.window_open, template) {
            // The STOP message itself opens the window, so an open window does not outweigh an opt-out.
            (true, ..) => Some(Ineligible::OptedOut),
            (false, true, _) => None,
            (false, false, false) => Some(Ineligible::WindowClosed),
            (false, false, true) => {
                (consent_required && !self.opted_in).then_some(Ineligible::NoOptIn)
            }
        }
    }
}

impl Submission {
    /// Returns whether all parts are templates, so that they may be sent while the customer service window is closed.
    pub(crate) fn is_template(&self) -> bool {
        let mut earlier = self.earlier_parts.iter();
        self.message.template && earlier.all(|part| part.template)
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Submission {
    pub(super) fn rejection(&self, eligibility: SendEligibility) -> Option<Ineligible> {
        eligibility.ineligible(self.is_template(), self.consent_required)
    }

    /// Returns all parts in the order in which they are sent. The last one is the message.
    pub(super) fn parts(&self) -> Vec<NewOutbound> {
        let mut parts = self.earlier_parts.clone();
        parts.push(self.message.clone());
        parts
    }

    /// Returns the fingerprint of all parts; `None` without a key.
    pub(super) fn fingerprint(&self) -> Option<MessageFingerprint> {
        let parts = self.earlier_parts.iter().chain([&self.message]);
        let key = self.key.as_ref()?;
        Some(key.fingerprint(parts.map(|part| &part.params)))
    }

    /// Returns `min_interval` in microseconds.
    pub(super) fn min_interval_micros(&self) -> i64 {
        // A quarter of the range, so that the statements can add the interval to a time without an overflow.
        i64::try_from(self.min_interval.as_micros()).unwrap_or(i64::MAX / 4)
    }
}

impl fmt::Debug for MessageFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageFingerprint(…)")
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_idempotency_key() {
        assert_eq!(
            IdempotencyKey::new("order-42"),
            IdempotencyKey::new("order-42")
        );
        assert_ne!(
            IdempotencyKey::new("order-42"),
            IdempotencyKey::new("order-43")
        );
        let key = IdempotencyKey::new("+15550001111");
        assert_eq!(format!("{key:?}"), "IdempotencyKey(…)");
    }

    #[test]
    fn fingerprint_covers_all_parts_in_order() {
        let key = IdempotencyKey::new("order-42");
        let part = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<FormParams>();
        let of = |parts: &[FormParams]| key.fingerprint(parts.iter());
        let (hello, when) = (
            part(&[("To", "x"), ("Body", "Hello")]),
            part(&[("Body", "When?")]),
        );
        let both = of(&[hello.clone(), when.clone()]);
        assert_eq!(
            both,
            of(&[part(&[("Body", "Hello"), ("To", "x")]), when.clone()])
        );
        for other in [
            &[when.clone(), hello.clone()][..],
            std::slice::from_ref(&when),
            &[part(&[("Body", "Hi"), ("To", "x")]), when.clone()],
        ] {
            assert_ne!(both, of(other));
        }
        let files = |first, second| of(&[part(&[("MediaUrl", first), ("MediaUrl", second)])]);
        assert_ne!(files("a", "b"), files("b", "a"));
        assert_ne!(
            IdempotencyKey::new("order-43").fingerprint([&when].into_iter()),
            of(&[when])
        );
    }

    #[test]
    fn send_eligibility_follows_consent_and_window() {
        use Ineligible::{NoOptIn, OptedOut, WindowClosed};
        // Opted out, opted in, window open, template, consent required, expected reason.
        for (opted_out, opted_in, window_open, template, required, rejection) in [
            (true, true, true, true, false, Some(OptedOut)),
            (false, false, true, false, true, None),
            (false, false, true, true, true, None),
            (false, true, false, false, false, Some(WindowClosed)),
            (false, false, false, true, true, Some(NoOptIn)),
            (false, true, false, true, true, None),
            (false, false, false, true, false, None),
        ] {
            let eligibility = SendEligibility {
                opted_out,
                opted_in,
                window_open,
            };
            assert_eq!(
                eligibility.ineligible(template, required),
                rejection,
                "{eligibility:?}"
            );
        }
    }
}
