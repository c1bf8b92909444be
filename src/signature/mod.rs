//! `X-Twilio-Signature`: verifying it, and telling the operator why one does not verify.
//!
//! Twilio signs the URL it was told to call and, for a form that was posted, the decoded pairs sorted by name:
//! HMAC-SHA1 with the account's auth token, in base64. There is no timestamp and there are no delimiters, so a verified
//! request may still be a replay, and a parameter's shape must be checked where it is read.
//!
//! What is accepted, and nothing else:
//!
//! 1. The URL is [`PublicUrl`] and the request's target byte for byte. No `Host`, no forwarding header, no decoding,
//!    sorting or cleaning has a say.
//! 2. Candidates are that URL as it is, without its port, and with the scheme's own port if it has none; and where the
//!    query holds `'`, `%27`, `%40` or `%3A`, the spellings that Twilio is known to sign instead.
//! 3. A posted or put form is decoded once; GET signs the URL alone; any other body needs exactly one `bodySHA256`.
//! 4. Exactly one signature header, 28 characters of canonical base64; each comparison in constant time.
//! 5. The signed bytes name no other message than the parameters do: the signed string has no separators, so a captured
//!    signature also fits the same bytes cut into other names and values.
//!
//! [`SignatureVerifier`] is the pure part: bytes in, verdict out. [`Explanation`] is for the operator's log and never
//! accepts anything. `SignatureLayer` (feature `axum`) is the same for anyone's tower stack.
//!
//! Sources: Twilio's "Webhooks security" page, and the behaviour of its validators for Python, Node, Go, Java, Ruby, PHP.

mod captured;
mod diagnose;
mod explain;
#[cfg(feature = "axum")]
pub(crate) mod layer;
mod public_url;
mod readings;
mod reshaped;
mod shell;
mod token;
mod verifier;

pub use captured::{CapturedError, CapturedRequest};
pub use explain::{BodyChange, Explanation, QueryChange};
#[cfg(feature = "axum")]
pub use layer::{
    Refusal, RefusalCause, RequestLimits, SignatureLayer, SignedForm, SignedFormRejection,
    VerifySignature,
};
pub use public_url::{PublicUrl, PublicUrlError, PublicUrlNote};
pub use token::{TokenError, sign};
pub use verifier::{
    SIGNATURE_HEADER, SignatureError, SignatureErrorKind, SignatureVerifier, TokenSlot,
    UnverifiedRequest, Verified,
};
