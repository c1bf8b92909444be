//! Validation of `X-Twilio-Signature`, and diagnosis of requests that fail it.
//!
//! Twilio signs the URL that it calls and, for a posted form, the decoded parameters sorted by name. The signature is
//! an HMAC-SHA1 with the account's auth token, in base64; or with a shared key and HMAC-SHA1 or HMAC-SHA256, both named
//! by the `X-Twilio-Webhooks-Signature-Settings` header. The signed string has no timestamp, so a verified request may
//! be a replay. It has no delimiters either, so the format of a parameter must be checked where it is read.
//!
//! A request is accepted only under these rules:
//!
//! 1. The URL is the [`PublicUrl`], followed by the path and query of the request, byte for byte. `Host` and forwarding
//!    headers are not used, and nothing is decoded, sorted or normalized.
//! 2. The candidates are that URL as it is, without its port, and with the scheme's default port if it has none. If the
//!    query contains `'`, `%27`, `%40` or `%3A`, the spellings that Twilio is known to sign instead are candidates too.
//! 3. A form in a POST or PUT is decoded once. A GET signs only the URL. Any other body needs exactly one `bodySHA256`.
//! 4. There is exactly one signature header, with 28 characters of canonical base64, or 44 with HMAC-SHA256. Signatures
//!    are compared in constant time.
//! 5. A request that names a shared key verifies only with that key and for the account of the key. It is never tried
//!    with an auth token, nor another request with a shared key.
//! 6. The signed string names the same message as the parameters. Without separators, a captured signature also matches
//!    the same bytes split into other names and values.
//!
//! [`SignatureVerifier`] does no I/O: it takes the bytes of a request and returns a result. [`Explanation`] is for the
//! operator's log; it never makes a request acceptable. `SignatureLayer` (feature `axum`) is a tower layer around the
//! verifier.
//!
//! Sources: Twilio's "Webhooks security" page, and the behavior of its validators for Python, Node, Go, Java, Ruby,
//! PHP.

#[cfg(feature = "axum")]
mod body_blocks;
mod capture_formats;
mod captured;
mod curl;
mod diagnose;
mod explain;
mod headers;
#[cfg(feature = "axum")]
#[doc(hidden)]
pub mod layer;
mod missing_keys;
mod public_url;
mod readings;
mod reshaped;
mod shared_key;
mod shell;
mod signature_error;
mod signing_key;
mod token;
mod verifier;
mod webhook_paths;

pub use captured::{CapturedError, CapturedRequest};
pub use explain::{BodyChange, Explanation, MappedPath, QueryChange};
pub use headers::{SIGNATURE_HEADER, SIGNATURE_SETTINGS_HEADER};
#[cfg(feature = "axum")]
pub use layer::{
    Rejection, RejectionReason, RequestLimits, SignatureLayer, SignedForm, SignedFormRejection,
    VerifySignature,
};
pub use public_url::{PublicUrl, PublicUrlError, PublicUrlWarning};
pub use shared_key::{SharedKeyId, SharedKeyIdError, SignatureAlgorithm, SignatureAlgorithmError};
pub use signature_error::{SettingsHeaderError, SignatureError, SignatureErrorKind};
pub use signing_key::SigningKey;
pub use token::{AuthTokenKind, TokenError, sign, sign_with};
pub use verifier::{SignatureVerifier, UnverifiedRequest, Verified};
pub use webhook_paths::{EqualPaths, RoutePath, RoutePathError, WebhookPaths};
