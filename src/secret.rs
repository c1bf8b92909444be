//! Values that must not be seen: redacted in `Debug`, without `Display` and `Serialize`, zeroed on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A token, key or password.
///
/// `Debug` prints no character of it, it cannot be displayed, and it cannot be serialised:
///
/// ```compile_fail,E0277
/// fn must_serialize<T: serde::Serialize>(_: T) {}
/// must_serialize(replyhook::Secret::new("token"));
/// ```
///
/// ```
/// use replyhook::Secret;
///
/// let token = Secret::new("0123456789abcdef0123456789abcdef");
/// assert_eq!(format!("{token:?}"), "Secret(…)");
/// assert_eq!(token.expose().len(), 32);
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value into custody.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value. Every use of this is a place to look at in a review.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}
