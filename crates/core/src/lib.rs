//! Twilio's webhook protocol, for [replyhook](https://crates.io/crates/replyhook): the types of addresses, SIDs, forms,
//! messages and replies, TwiML, and the validation of `X-Twilio-Signature`.
//!
//! Use the crate `replyhook`, which re-exports all of these modules. It lets you choose features, so that a program
//! which only verifies signatures compiles neither a store nor a client. The items that are hidden from this
//! documentation serve `replyhook` and `replyhook-emulator`, and can change in any version.
//!
//! | module | contents |
//! |---|---|
//! | [`address`], [`sid`] | addresses of users and senders, and Twilio's SIDs |
//! | [`form`] | decoded form parameters |
//! | [`message`], [`error_code`] | inbound messages, status callbacks and Twilio's error codes |
//! | [`reply`], [`twiml`] | replies, and their TwiML |
//! | [`choice`] | questions with choices, and their answers |
//! | [`signature`] | signature validation, and the reason why a request fails it |
//! | [`clock`] | the time, which tests can advance |
//!
//! The feature `axum` adds `signature::SignatureLayer`, `signature::SignedForm` and `clock::SystemClock`.

pub mod address;
#[doc(hidden)]
pub mod address_key;
pub mod choice;
pub mod clock;
mod error;
pub mod error_code;
#[doc(hidden)]
pub mod folding;
pub mod form;
pub mod message;
#[doc(hidden)]
pub mod redact;
pub mod reply;
mod secret;
pub mod sid;
pub mod signature;
#[doc(hidden)]
pub mod sms_keywords;
#[doc(hidden)]
pub mod template;
#[cfg(feature = "client")]
#[doc(hidden)]
pub mod tls;
pub mod twiml;

pub use error::{BoxError, HandlerError};
pub use form::FormParams;
pub use secret::Secret;
